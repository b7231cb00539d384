// node test/package/bundlers.mjs [NAME...]: bundles a program by each tool of docs/deploying.md, with the package external and inlined,
// and runs the bundles. It takes the tools from the npm registry, so it is no part of the tests.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const folder = mkdtempSync(join(tmpdir(), 'score-sde-bundlers-'));
const at = (...path) => join(folder, ...path);
const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1' };

const program = `
const { ScoreSdeVePipeline } = require('score-sde');
(async () => {
  const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
  const result = await pipeline.run({ calls: 4, seed: 1 });
  console.log('bytes', (await result.toPng()).length);
  await pipeline.dispose();
})();`;
const external = '["score-sde", "onnxruntime-node"]';
const rollup = (list) => `
  import { rollup } from 'rollup';
  import commonjs from '@rollup/plugin-commonjs';
  import json from '@rollup/plugin-json';
  import resolve from '@rollup/plugin-node-resolve';
  const bundle = await rollup({
    input: 'app.js', external: ${list}, plugins: [resolve({ preferBuiltins: true }), commonjs(), json()],
  });
  await bundle.write({ format: 'cjs', file: 'out/app.cjs' });`;
const webpack = (externals) => `
  import webpack from 'webpack';
  const output = { path: process.cwd() + "/out", filename: 'app.cjs' };
  const done = (error, stats) => { if (error || stats.hasErrors()) throw error ?? new Error(stats.toString()); };
  webpack({ target: 'node', mode: 'production', entry: './app.js', output, externals: ${externals} }, done);`;
const vite = (ssr) => `
  import { build } from 'vite';
  const rollupOptions = { output: { format: 'cjs', entryFileNames: 'app.cjs' } };
  await build({ logLevel: 'error', ssr: ${ssr}, build: { ssr: 'app.js', outDir: 'out', rollupOptions } });`;

/** By tool: its packages, and a script each that makes out/app.cjs (or out/index.js). */
const bundlers = {
  webpack: [['webpack'], webpack(`{ 'score-sde': 'commonjs score-sde' }`), webpack('{}')],
  rollup: [
    ['rollup', '@rollup/plugin-commonjs', '@rollup/plugin-json', '@rollup/plugin-node-resolve'],
    rollup(external),
    rollup('[]'),
  ],
  vite: [['vite'], vite(`{ external: ${external} }`), vite('{ noExternal: true }')],
  ncc: [
    ['@vercel/ncc'],
    `import { execFileSync } from 'node:child_process';
     execFileSync('npx', ['ncc', 'build', 'app.js', '-o', 'out', '-e', 'score-sde', '-e', 'onnxruntime-node']);`,
    `import { execFileSync } from 'node:child_process'; execFileSync('npx', ['ncc', 'build', 'app.js', '-o', 'out']);`,
  ],
};

const npm = (...packages) =>
  execFileSync('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts', ...packages], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  });

/** The package as it is built here, and what it needs. */
function application() {
  writeFileSync(at('package.json'), '{ "name": "application", "private": true }');
  const packed = execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder], {
    cwd: root,
    encoding: 'utf8',
  });
  npm(at(packed.trim().split('\n').at(-1)), `onnxruntime-node@${versionOf('onnxruntime-node')}`);
  mkdirSync(at('node_modules/score-sde/build/Release'), { recursive: true });
  const binary = 'build/Release/score-sde.node';
  cpSync(join(root, binary), at('node_modules/score-sde', binary));
  writeFileSync(at('app.js'), program);
}

function versionOf(name) {
  const file = join(root, 'node_modules', name, 'package.json');
  return execFileSync(process.execPath, ['-p', `require(${JSON.stringify(file)}).version`], {
    encoding: 'utf8',
  }).trim();
}

let failures = 0;
function report(name, isRight, said) {
  if (!isRight) failures++;
  console.log(`${isRight ? 'ok    ' : 'FAILED'} ${name}${isRight ? '' : `\n${said}`}`);
}

const runs = (said) => /bytes \d+/.test(said);
const advises = (said) => said.includes('mark score-sde as external');

function bundle(name, script, isRight) {
  rmSync(at('out'), { recursive: true, force: true });
  writeFileSync(at('build.mjs'), script);
  const made = spawnSync(process.execPath, ['build.mjs'], { cwd: folder, env, encoding: 'utf8' });
  const file = name.startsWith('ncc') ? 'out/index.js' : 'out/app.cjs';
  const ran = spawnSync(process.execPath, [file], { cwd: folder, encoding: 'utf8' });
  const said = ran.stdout + ran.stderr;
  report(name, made.status === 0 && isRight(said), made.stdout + made.stderr + said);
}

/** Next.js takes a port, and does not say which one it was given for 0. */
async function freePort() {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  return port;
}

/** Next.js: a standalone server, moved elsewhere, answers a request with a picture; inlined, `next build` gives the advice. */
async function next(bundler) {
  const library = `./node_modules/onnxruntime-node/bin/napi-v6/${process.platform}/${process.arch}/*.so*`;
  const tracing = bundler === '--webpack' ? '' : `outputFileTracingIncludes: { '/*': ['${library}'] },`;
  mkdirSync(at('app/sample'), { recursive: true });
  writeFileSync(at('app/layout.js'), 'export default ({ children }) => <html><body>{children}</body></html>;');
  writeFileSync(
    at('app/sample/route.js'),
    `import { ScoreSdeVePipeline } from 'score-sde';
    export const dynamic = 'force-dynamic';
    export async function GET() {
      const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
      const result = await pipeline.run({ calls: 4, seed: 1 });
      return new Response('bytes ' + (await result.toPng()).length);
    }`,
  );
  const build = (config) => {
    rmSync(at('.next'), { recursive: true, force: true });
    writeFileSync(at('next.config.mjs'), `export default { output: 'standalone', ${config} };`);
    const { stdout, stderr } = spawnSync('npx', ['next', 'build', bundler], { cwd: folder, env, encoding: 'utf8' });
    return stdout + stderr;
  };
  const inlined = build('');
  report(`next ${bundler}, inlined`, advises(inlined), inlined);
  const said = build(`serverExternalPackages: ['score-sde'], ${tracing}`);
  const elsewhere = mkdtempSync(join(tmpdir(), 'score-sde-standalone-'));
  cpSync(at('.next/standalone'), elsewhere, { recursive: true, verbatimSymlinks: true });
  const port = await freePort();
  const server = spawn(process.execPath, ['server.js'], {
    cwd: elsewhere,
    env: { ...env, PORT: String(port), HOSTNAME: '127.0.0.1' },
    stdio: 'ignore',
  });
  let answer = said;
  for (let k = 0; k < 40 && !runs(answer); k++) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    answer = await fetch(`http://127.0.0.1:${port}/sample`).then((response) => response.text(), String);
  }
  if (server.kill()) await once(server, 'exit');
  report(`next ${bundler}, external and standalone`, runs(answer), said + answer);
  rmSync(elsewhere, { recursive: true });
}

const asked = process.argv.slice(2);
const isAsked = (name) => asked.length === 0 || asked.includes(name);
application();
for (const [name, [packages, outside, inside]] of Object.entries(bundlers)) {
  if (!isAsked(name)) continue;
  npm(...packages);
  bundle(`${name}, external`, outside, runs);
  bundle(`${name}, inlined`, inside, advises);
}
if (isAsked('next')) {
  npm('next', 'react', 'react-dom');
  await next('--webpack');
  await next('--turbopack');
}
rmSync(folder, { recursive: true });
process.exitCode = failures > 0 ? 1 : 0;
