import { chmod, open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ScoreSdeVeScheduler } from '../lib';
import { removeFolders, temporaryFolder } from './support/folders';

// Writing files whole.

afterAll(removeFolders);
afterEach(() => jest.restoreAllMocks());

const scheduler = new ScoreSdeVeScheduler();
const name = 'scheduler_config.json';

test.each([0o600, 0o666, 0o755])('a file that is replaced keeps its mode %o', async (mode) => {
  const folder = await temporaryFolder();
  await writeFile(join(folder, name), 'before');
  await chmod(join(folder, name), mode);
  await scheduler.savePretrained(folder);
  expect((await stat(join(folder, name))).mode & 0o777).toBe(mode);
});

describe('where a file is not synchronised', () => {
  /** Makes sync of all file handles fail. */
  const failing = async (folder: string, error: Error) => {
    const handle = await open(join(folder, 'any'), 'w');
    jest.spyOn(Object.getPrototypeOf(handle) as typeof handle, 'sync').mockRejectedValue(error);
    await handle.close();
  };

  test("as there is no such method (Yarn's Plug'n'Play), it is written", async () => {
    const folder = await temporaryFolder();
    await failing(folder, new Error('Method not implemented.'));
    await scheduler.savePretrained(folder);
    expect(await readFile(join(folder, name), 'utf8')).toContain('"num_train_timesteps": 2000');
  });

  test('as the disk fails, it is not', async () => {
    const folder = await temporaryFolder();
    await failing(folder, Object.assign(new Error('EIO: i/o error, fsync'), { syscall: 'fsync' }));
    await expect(scheduler.savePretrained(folder)).rejects.toMatchObject({ code: 'ERR_IO' });
    await expect(stat(join(folder, name))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
