import { deployingPage, ScoreSdeError } from './errors';

// This file imports no module of Node.js: the require of an ES module that esbuild has bundled refuses them, and what is said
// here would not be heard.

/** This package's version. A bundler copies it. */
// eslint-disable-next-line @typescript-eslint/no-require-imports
export const { version } = require('../package.json') as { version: string };

/** The error where a bundler has put this code into a file of its own, so that nothing lies beside it. */
export function inlinedError(cause?: unknown): ScoreSdeError {
  const file = typeof __filename === 'undefined' ? 'an ES module' : __filename;
  return new ScoreSdeError(
    'ERR_NATIVE',
    `score-sde is inlined in a bundle (${file}), away from its binary and its models; mark score-sde as external: ` +
      "serverExternalPackages: ['score-sde'] in Next.js, external in esbuild and rollup, externals in webpack, ssr.external in " +
      `vite, --external in ncc (${deployingPage})`,
    cause === undefined ? undefined : { cause },
  );
}

// A bundle that is an ES module has no __dirname, by which all files of this package are found.
if (typeof __dirname === 'undefined') throw inlinedError();
