import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import ts from 'typescript';
import { nativePath } from '../../lib/native/addon';
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

const at = (base: string) => ({
  repository: { type: 'git', url: `git+${base}.git` },
  homepage: base,
  bugs: { url: `${base}/issues` },
});
const base = 'https://github.com/somebody/score-sde';
const named = at(base);

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

/** How a binary of each platform begins: its format's mark, and the number of its processor. */
const headers: Record<string, Buffer> = {
  'linux-x64': elf(62),
  'linux-arm64': elf(183),
  'darwin-x64': macho(7),
  'darwin-arm64': macho(12),
  'win32-x64': pe(0x8664),
};

function elf(machine: number): Buffer {
  const header = Buffer.alloc(64);
  header.write('\x7fELF\x02\x01\x01', 'latin1');
  header.writeUInt16LE(machine, 18);
  return header;
}

function macho(processor: number): Buffer {
  const header = Buffer.alloc(32);
  header.set([0xcf, 0xfa, 0xed, 0xfe, processor, 0, 0, 1]);
  return header;
}

function pe(machine: number): Buffer {
  const header = Buffer.alloc(256);
  header.write('MZ');
  header.writeUInt32LE(0x80, 0x3c);
  header.write('PE\0\0', 0x80);
  header.writeUInt16LE(machine, 0x84);
  return header;
}

describe('npm publish', () => {
  const publish = (folder: string) => npm(folder, 'publish', '--dry-run');

  test('refuses placeholders, a version without its changes, and binaries that are not there', async () => {
    const { status, stderr } = publish(await copyOf({ ...at('https://github.com/OWNER/score-sde'), version: '7.8.9' }));
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
    await writeFile(changes, (await readFile(changes, 'utf8')).replace(/^## .*/m, '## 7.8.9 - 2030-01-02'));
    const table = await readFile(join(folder, 'prebuilds/README.md'), 'utf8');
    const files = [...table.matchAll(/`([a-z0-9-]+\/\S+\.node)`/g)].map(([, file]) => file!);
    expect(files.length).toBeGreaterThanOrEqual(5);
    for (const file of [...files, 'linux-x64/score-sde.node']) {
      await mkdir(dirname(join(folder, 'prebuilds', file)), { recursive: true });
      await writeFile(join(folder, 'prebuilds', file), headers[dirname(file)]!);
    }
    expect(publish(folder).stderr).toMatch(
      /^check-release: prebuilds\/linux-x64\/score-sde\.node is not in the table of its README\.md$/m,
    );
    const check = await readFile(join(folder, 'prebuilds/README.md'), 'utf8');
    await writeFile(join(folder, 'prebuilds/README.md'), `${check}\n| \`linux-x64/score-sde.node\` |\n`);
    const checked = (env: NodeJS.ProcessEnv) => {
      const options = {
        cwd: folder,
        env: userEnvironment({ GITHUB_REF_TYPE: 'branch', ...env }),
        encoding: 'utf8',
      } as const;
      const { status, stderr } = spawnSync(process.execPath, ['scripts/check-release.js'], options);
      return { status, stderr };
    };
    const nothing = { status: 0, stderr: '' };
    expect(checked({ GITHUB_REF_NAME: 'main' })).toEqual(nothing);

    const ofTag = (tag: string) => checked({ GITHUB_REF_TYPE: 'tag', GITHUB_REF_NAME: tag });
    expect(ofTag('v7.8.9')).toEqual(nothing);
    expect(ofTag('v7.8.8')).toEqual({
      status: 1,
      stderr: 'check-release: package.json: the version is 7.8.9, and the tag v7.8.8\n',
    });

    const file = 'linux-arm64/score-sde.glibc.node';
    const others = Object.entries(headers).filter(([name]) => name !== dirname(file));
    for (const content of [Buffer.alloc(0), Buffer.alloc(100), ...others.map(([, header]) => header)]) {
      await writeFile(join(folder, 'prebuilds', file), content);
      expect(checked({})).toEqual({
        status: 1,
        stderr: `check-release: prebuilds/${file} is no binary of linux-arm64\n`,
      });
    }
  });

  test('knows the format of the binary that is built here', async () => {
    const folder = await copyOf(named);
    const platform = `${process.platform}-${process.arch}`;
    const table = await readFile(join(folder, 'prebuilds/README.md'), 'utf8');
    const file = table.match(new RegExp(`${platform}/[\\w.-]+\\.node`))![0];
    await mkdir(join(folder, 'prebuilds', platform));
    await cp(nativePath(), join(folder, 'prebuilds', file));
    const { stderr } = spawnSync(process.execPath, ['scripts/check-release.js'], { cwd: folder, encoding: 'utf8' });
    expect(stderr).toContain('is missing');
    expect(stderr).not.toContain(`prebuilds/${file} `);
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

describe('where ONNX Runtime has no library', () => {
  const suites = JSON.parse(readFileSync(join(root, 'test/network-free-suites.json'), 'utf8')) as string[];
  const read = (path: string) => readFileSync(join(root, path), 'utf8');

  /** A file of the tests and all that it imports of them. */
  function withImports(file: string, found = new Set<string>()): Set<string> {
    if (found.has(file)) return found;
    found.add(file);
    for (const { fileName } of ts.preProcessFile(read(file), true, true).importedFiles) {
      const path = posix.join(posix.dirname(file), fileName);
      if (!fileName.startsWith('.') || !path.startsWith('test/')) continue;
      withImports(
        [`${path}.ts`, path].find((each) => existsSync(join(root, each)))!,
        found,
      );
    }
    return found;
  }

  /** What opens ONNX Runtime: itself, this package's calls that do, and the command line. */
  const opens =
    /onnxruntime-node|\b(OnnxModel|InferenceSession|fromInferenceSession|fromPretrained)\b|support\/command|dist\/cli/;
  const opening = (suite: string) => [...withImports(suite)].filter((file) => opens.test(read(file)));

  test('a suite that opens it is found', () => {
    expect(opening('test/digits.golden.test.ts')).toContain('test/digits.golden.test.ts');
    expect(opening('test/order.test.ts')).toEqual(['test/support/bad-tensors.ts']);
  });

  test.each(suites)('%s opens none', (suite) => {
    expect(opening(suite)).toEqual([]);
  });
});

test('prebuildify refuses what it cannot make, in one sentence', () => {
  const names = [`${process.platform}-${process.arch}`, 'plan9-x64'];
  const { status, stderr } = spawnSync(process.execPath, ['scripts/prebuildify.js', ...names], {
    cwd: root,
    encoding: 'utf8',
  });
  expect(status).toBe(1);
  expect(stderr).toMatch(/^prebuildify: plan9-x64 is not made on \S+: .*\b[a-z0-9]+-(x64|arm64)\b.* can be\n$/);
});

test('a clone without development dependencies says so in one sentence', async () => {
  const folder = await copyOf({});
  await mkdir(join(folder, 'node_modules'));
  await cp(join(root, 'node_modules/node-gyp-build'), join(folder, 'node_modules/node-gyp-build'), { recursive: true });
  const { status, stderr } = spawnSync(process.execPath, ['scripts/prepare.js'], { cwd: folder, encoding: 'utf8' });
  expect({ status, stderr }).toEqual({
    status: 1,
    stderr: 'score-sde: what compiles this clone is not installed: npm install, without --omit=dev, installs it\n',
  });
});
