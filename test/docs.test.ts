import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { exportingPage } from '../lib/errors';
import { root } from './support/paths';

const read = (path: string) => readFileSync(join(root, path), 'utf8');
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  ...readdirSync(join(root, 'docs')).map((f) => `docs/${f}`),
];
const texts = pages.filter((path) => path.endsWith('.md'));

test('troubleshooting has an entry for every error code and no other', () => {
  const codes = [...read('lib/errors.ts').matchAll(/^ {2}\| '(ERR_\w+)'/gm)].map(([, code]) => code!);
  const entries = [...read('docs/troubleshooting.md').matchAll(/^## (ERR_\w+)$/gm)].map(([, code]) => code!);
  expect(codes.length).toBeGreaterThan(10);
  expect(entries.sort()).toEqual(codes.sort());
});

test('the page that errors name is in the package', () => {
  const { name, files } = JSON.parse(read('package.json')) as { name: string; files: string[] };
  const [, inPackage] = exportingPage.split(`node_modules/${name}/`);
  expect(existsSync(join(root, inPackage!))).toBe(true);
  expect(files).toContain(dirname(inPackage!));
});

test.each(texts)('%s: its links lead to files', (path) => {
  const links = [...read(path).matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)].map(([, link]) => link!);
  expect(links.filter((link) => !existsSync(join(root, dirname(path), link)))).toEqual([]);
});

test.each(texts)('%s: its commands are there', (path) => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const named = [...read(path).matchAll(/npm run ([\w:-]+)/g)].map(([, name]) => name!);
  expect(named.filter((name) => !(name in scripts))).toEqual([]);
});
