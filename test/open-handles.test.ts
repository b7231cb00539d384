import { spawnSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { removeFolders, temporaryFolder } from './support/folders';
import { root } from './support/paths';
import { userEnvironment } from './support/tarball';

afterAll(removeFolders);

/** What `jest --detectOpenHandles` prints of a test with this body, where `sde` is the package. */
async function handlesOf(body: string): Promise<string> {
  const folder = await temporaryFolder();
  await writeFile(join(folder, 'package.json'), '{ "jest": { "testEnvironment": "node", "transform": {} } }');
  await writeFile(
    join(folder, 'work.test.js'),
    `const sde = require(${JSON.stringify(root)});\ntest('work', async () => {${body}});`,
  );
  const jest = require.resolve('jest/bin/jest');
  const { status, stderr } = spawnSync(process.execPath, [jest, '--detectOpenHandles'], {
    cwd: folder,
    env: userEnvironment(),
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  expect(stderr).toMatch(/1 passed/);
  return stderr;
}

test('jest --detectOpenHandles names nothing after a run, a picture and a saved run', async () => {
  const said = await handlesOf(`
    const pipeline = await sde.ScoreSdeVePipeline.fromPretrained('digits', { device: 'cpu' });
    const result = await pipeline.run({ calls: 3, seed: 1, batchSize: 4 });
    await result.toPng();
    await pipeline.start({ calls: 3, seed: 1 }).save({ stop: true });
    await pipeline.dispose();`);
  expect(said).not.toMatch(/open handle/);
});

test('it names score-sde where a call is still under way', async () => {
  const said = await handlesOf(`
    const out = sde.Tensor.empty([2 ** 24]);
    const generator = new sde.Generator(1, { engine: 'torch' });
    for (let k = 0; k < 16; k++) void generator.randnAsync(out.dims, { out });`);
  expect(said).toMatch(/open handle/);
  expect(said).toMatch(/● {2}score-sde/);
});
