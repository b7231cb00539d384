import { runInNewContext } from 'node:vm';
import tseslint from 'typescript-eslint';

/** What Node.js adds to the globals of JavaScript. Another environment (jsdom) has others, and fake timers replace them. */
const ofNode = () => {
  const ofLanguage = runInNewContext('Object.getOwnPropertyNames(globalThis)');
  // These have no module to be imported from. `process` is there in every environment that this package can run in.
  const allowed = ['process', 'AbortController', 'AbortSignal'];
  return Object.getOwnPropertyNames(globalThis).filter((name) => ![...ofLanguage, ...allowed].includes(name));
};

export default tseslint.config(
  { ignores: ['build/', 'coverage/', 'dist/', 'models/', 'prebuilds/'] },
  ...tseslint.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: tseslint.configs.recommendedTypeCheckedOnly,
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
  },
  {
    rules: {
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
    },
  },
  {
    // The package runs in others' processes and tests; its command line has a process of its own.
    files: ['lib/**/*.ts'],
    ignores: ['lib/cli/**'],
    rules: {
      'no-restricted-globals': [
        'error',
        ...ofNode().map((name) => ({ name, message: 'Import it from a module of Node.js (timers: lib/clock.ts).' })),
      ],
      'no-restricted-syntax': [
        'error',
        {
          selector: "LogicalExpression[operator='??'] > MemberExpression.left[object.name='options']",
          message: 'null is no option that was not given: take `const { name = value } = options` (lib/options.ts).',
        },
      ],
    },
  },
  {
    files: ['lib/**/*.ts'],
    ignores: ['lib/cli/**', 'lib/clock.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              regex: '^(node:)?(timers|perf_hooks)',
              message: 'Fake timers replace the functions of these modules, too: lib/clock.ts has kept the real ones.',
            },
          ],
        },
      ],
    },
  },
  { files: ['**/*.js'], rules: { '@typescript-eslint/no-require-imports': 'off' } },
  {
    // JSON and what is thrown are of any type, and tests look into both; what is meant to be wrong needs a cast.
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-base-to-string': 'off',
      '@typescript-eslint/no-explicit-any': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unnecessary-type-assertion': 'off',
    },
  },
);
