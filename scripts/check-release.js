'use strict';
// npm publish runs this first, and publishes nothing where it fails: it says everything that a release still lacks.
const { readdirSync, readFileSync } = require('node:fs');
const { join } = require('node:path');

const root = join(__dirname, '..');
const read = (name) => readFileSync(join(root, name), 'utf8');
const manifest = JSON.parse(read('package.json'));
const lacks = [];

for (const key of ['repository', 'homepage', 'bugs']) {
  const { url = manifest[key] } = manifest[key] ?? {};
  if (!/^(git\+)?https:\/\//.test(url) || url.includes('/OWNER/'))
    lacks.push(`package.json: ${key} is a placeholder, ${url}`);
}

if (!read('CHANGELOG.md').includes(`\n## ${manifest.version} - `))
  lacks.push(`CHANGELOG.md: there is no section "## ${manifest.version} - DATE"`);

const wanted = [...read('prebuilds/README.md').matchAll(/^\| `(\S+\.node)`/gm)].map(([, file]) => file);
const folders = readdirSync(join(root, 'prebuilds'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
const found = folders.flatMap(({ name }) =>
  readdirSync(join(root, 'prebuilds', name)).map((file) => `${name}/${file}`),
);
if (wanted.length === 0) lacks.push('prebuilds/README.md: its table names no file');
for (const file of wanted) if (!found.includes(file)) lacks.push(`prebuilds/${file} is missing`);
for (const file of found)
  if (!wanted.includes(file)) lacks.push(`prebuilds/${file} is not in the table of its README.md`);

for (const lack of lacks) process.stderr.write(`check-release: ${lack}\n`);
if (lacks.length > 0) process.exitCode = 1;
