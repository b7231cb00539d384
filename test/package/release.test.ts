import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { removeFolders, temporaryFolder } from '../support/folders';
import { root } from '../support/paths';
import { userEnvironment } from '../support/tarball';

// What npm does with the repository: installing it, packing it, publishing it.
afterAll(removeFolders);

interface Manifest {
  version: string;
  scripts: Record<string, string>;
  allowScripts: Record<string, boolean>;
}
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest;

const base = 'https://github.com/somebody/score-sde';
const named = { repository: { type: 'git', url: `git+${base}.git` }, homepage: base, bugs: { url: `${base}/issues` } };

/** A copy of what the release's scripts look at, with these values in its package.json. */
async function copyOf(values: object): Promise<string> {
  const folder = await temporaryFolder();
  for (const name of ['README.md', 'CHANGELOG.md', 'prebuilds/README.md', 'scripts'])
    await cp(join(root, name), join(folder, name), { recursive: true });
  await writeFile(join(folder, 'package.json'), JSON.stringify({ ...manifest, ...values }));
  return folder;
}

const npm = (cwd: string, ...args: string[]) =>
  spawnSync('npm', args, { cwd, env: userEnvironment(), encoding: 'utf8', shell: process.platform === 'win32' });

describe('npm publish', () => {
  const publish = (folder: string) => npm(folder, 'publish', '--dry-run');

  test('refuses placeholders, a version without its changes, and binaries that are not there', async () => {
    const { status, stderr } = publish(await copyOf({ version: '7.8.9' }));
    expect(status).not.toBe(0);
    for (const key of ['repository', 'homepage', 'bugs'])
      expect(stderr).toMatch(new RegExp(`^check-release: package.json: ${key} is a placeholder, \\S+/OWNER/`, 'm'));
    expect(stderr).toMatch(/^check-release: CHANGELOG\.md: there is no section "## 7\.8\.9 - DATE"$/m);
    for (const file of ['linux-x64/score-sde.glibc.node', 'win32-x64/score-sde.node', 'darwin-arm64/score-sde.node'])
      expect(stderr).toMatch(new RegExp(`^check-release: prebuilds/${file} is missing$`, 'm'));
  });

  test('refuses a binary that the table does not name, and goes on where nothing is lacking', async () => {
    const scripts = { prepublishOnly: manifest.scripts.prepublishOnly };
    const folder = await copyOf({ ...named, scripts, publishConfig: {}, version: '7.8.9', files: ['prebuilds'] });
    const changes = join(folder, 'CHANGELOG.md');
    await writeFile(changes, (await readFile(changes, 'utf8')).replace('## Unreleased', '## 7.8.9 - 2030-01-02'));
    const table = await readFile(join(folder, 'prebuilds/README.md'), 'utf8');
    const files = [...table.matchAll(/`([a-z0-9-]+\/\S+\.node)`/g)].map(([, file]) => file!);
    expect(files.length).toBeGreaterThanOrEqual(5);
    for (const file of [...files, 'linux-x64/score-sde.node']) {
      await mkdir(dirname(join(folder, 'prebuilds', file)), { recursive: true });
      await writeFile(join(folder, 'prebuilds', file), '');
    }
    expect(publish(folder).stderr).toMatch(
      /^check-release: prebuilds\/linux-x64\/score-sde\.node is not in the table of its README\.md$/m,
    );
    const check = await readFile(join(folder, 'prebuilds/README.md'), 'utf8');
    await writeFile(join(folder, 'prebuilds/README.md'), `${check}\n| \`linux-x64/score-sde.node\` |\n`);
    expect(spawnSync(process.execPath, ['scripts/check-release.js'], { cwd: folder, encoding: 'utf8' })).toMatchObject({
      status: 0,
      stderr: '',
    });
  });
});

test('README.md is packed with absolute links to what is in the repository, which keeps relative ones', async () => {
  const { postpack, prepack } = manifest.scripts;
  const scripts = { postpack, prepack: prepack!.replace('node scripts/prepare.js && ', '') };
  const folder = await copyOf({ ...named, scripts });
  expect(npm(folder, 'pack')).toMatchObject({ status: 0 });
  const before = await readFile(join(root, 'README.md'), 'utf8');
  expect(await readFile(join(folder, 'README.md'), 'utf8')).toBe(before);

  const args = ['-xzOf', `score-sde-${manifest.version}.tgz`, 'package/README.md'];
  const packed = spawnSync('tar', args, { cwd: folder, encoding: 'utf8' }).stdout;
  const links = [...packed.matchAll(/\]\(([^)]+)\)|src="([^"]+)"/g)].map(([, link, picture]) => link ?? picture!);
  expect(links.filter((link) => !/^(https:|#)/.test(link))).toEqual([]);
  const prefix = new RegExp(`^${base}/(blob|raw)/v${manifest.version}/`);
  const own = links.filter((link) => prefix.test(link)).map((link) => link.replace(prefix, '').replace(/#.*/, ''));
  expect(own).toContain('docs/digits.png');
  expect(own.length).toBeGreaterThan(10);
  expect(own.filter((path) => !existsSync(join(root, path)))).toEqual([]);
});

test('installing a clone runs no script of onnxruntime-node, which would download GPU libraries', () => {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { hasInstallScript?: boolean }>;
  };
  // npm from 11.16 on asks allowScripts; earlier versions look at the lock file. An update of onnxruntime-node writes
  // "hasInstallScript": true there: delete that line.
  expect(manifest.allowScripts).toMatchObject({ 'onnxruntime-node': false });
  expect(lock.packages['node_modules/onnxruntime-node']).toBeDefined();
  expect(lock.packages['node_modules/onnxruntime-node']).not.toHaveProperty('hasInstallScript');
  // npm names each script that allowScripts does not.
  const scripted = Object.entries(lock.packages).filter(([, { hasInstallScript }]) => hasInstallScript);
  const names = scripted.map(([path]) => path.replace(/^.*node_modules\//, ''));
  expect(names.filter((name) => !(name in manifest.allowScripts))).toEqual([]);
});
