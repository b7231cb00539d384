'use strict';
// node scripts/readme-links.js absolute|relative: the links and pictures of README.md, which npm's page shows without the
// files beside it. npm runs the first before it packs and the second after it; in the repository they are relative. The
// absolute ones lead to the tag of this version. While package.json's repository is a placeholder, nothing changes.
const { readFileSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');

const root = join(__dirname, '..');
const { repository, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const base = repository.url.replace(/^git\+|\.git$/g, '');
const readme = join(root, 'README.md');
const text = readFileSync(readme, 'utf8');

const toAbsolute = () =>
  text
    .replace(/\]\((?!https?:|#)/g, `](${base}/blob/v${version}/`)
    .replace(/ src="(?!https?:)/g, ` src="${base}/raw/v${version}/`);
const toRelative = () => text.replaceAll(`${base}/blob/v${version}/`, '').replaceAll(`${base}/raw/v${version}/`, '');

const changed = process.argv[2] === 'absolute' ? toAbsolute() : toRelative();
if (!base.includes('/OWNER/') && changed !== text) writeFileSync(readme, changed);
