'use strict';
// npm publish runs this first, and publishes nothing where it fails: it says everything that a release still lacks.
// The workflow of a release runs it, too.
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

const { GITHUB_REF_TYPE: kind, GITHUB_REF_NAME: tag } = process.env;
if (kind === 'tag' && tag !== `v${manifest.version}`)
  lacks.push(`package.json: the version is ${manifest.version}, and the tag ${tag}`);

/** The processor that the file is compiled for, as its format numbers it; undefined where the format is another. */
const machineOf = {
  linux: (bytes) => (bytes.readUInt32BE(0) === 0x7f454c46 ? bytes.readUInt16LE(18) : undefined), // ELF
  darwin: (bytes) => (bytes.readUInt32LE(0) === 0xfeedfacf ? bytes.readUInt32LE(4) : undefined), // Mach-O
  win32(bytes) {
    const header = bytes.readUInt32LE(0x3c); // PE, after a program for DOS
    const isPe = bytes.toString('latin1', 0, 2) === 'MZ' && bytes.toString('latin1', header, header + 4) === 'PE\0\0';
    return isPe ? bytes.readUInt16LE(header + 4) : undefined;
  },
};
const machines = {
  linux: { x64: 62, arm64: 183 },
  darwin: { x64: 0x01000007, arm64: 0x0100000c },
  win32: { x64: 0x8664, arm64: 0xaa64 },
};

/** Whether prebuilds/PLATFORM-ARCH/NAME begins as a binary of that platform and processor does. */
function isBinary(file) {
  const [platform, arch] = file.split('/')[0].split('-');
  try {
    return machineOf[platform](readFileSync(join(root, 'prebuilds', file))) === machines[platform][arch];
  } catch (error) {
    if (error.code === 'ERR_OUT_OF_RANGE' || error.code === 'ERR_BUFFER_OUT_OF_BOUNDS') return false; // too short
    throw error;
  }
}

const wanted = [...read('prebuilds/README.md').matchAll(/^\| `(\S+\.node)`/gm)].map(([, file]) => file);
const folders = readdirSync(join(root, 'prebuilds'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
const found = folders.flatMap(({ name }) =>
  readdirSync(join(root, 'prebuilds', name)).map((file) => `${name}/${file}`),
);
if (wanted.length === 0) lacks.push('prebuilds/README.md: its table names no file');
for (const file of wanted) {
  if (!found.includes(file)) lacks.push(`prebuilds/${file} is missing`);
  else if (!isBinary(file)) lacks.push(`prebuilds/${file} is no binary of ${file.split('/')[0]}`);
}
for (const file of found)
  if (!wanted.includes(file)) lacks.push(`prebuilds/${file} is not in the table of its README.md`);

for (const lack of lacks) process.stderr.write(`check-release: ${lack}\n`);
if (lacks.length > 0) process.exitCode = 1;
