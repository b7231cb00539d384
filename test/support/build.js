'use strict';
const { execFileSync } = require('node:child_process');
const { join } = require('node:path');

// What runs in processes and worker threads of its own takes the package as it is installed: from dist/.
module.exports = () =>
  void execFileSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', 'tsconfig.build.json'], {
    cwd: join(__dirname, '..', '..'),
    stdio: 'inherit',
  });
