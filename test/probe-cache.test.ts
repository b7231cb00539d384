import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { OnnxModel } from '../lib';
import { removeFolders, temporaryFolder } from './support/folders';
import { logarithmGraph } from './support/onnx';
import { root } from './support/paths';
import { rejection, sentence } from './support/refusals';

afterAll(removeFolders);

const network = join(root, 'models/digits/unet/model.onnx');
const shipped = JSON.parse(readFileSync(join(root, 'models/digits/unet/probe.json'), 'utf8')) as object[];

/** A network whose calls are quick on any machine: what a probe of a slow one finds is not kept. */
const small = logarithmGraph([1, 2, 2]);

/** Loads with options that no other load in this process has, so that nothing is known of their probe. */
const load = (threads: number, probeCache: string, of: string | Uint8Array = network) =>
  OnnxModel.load(of, { device: 'cpu', intraOpThreads: threads, interOpThreads: 2, probeCache });

test('what a probe found is kept in a file, and found there', async () => {
  const file = join(await temporaryFolder(), 'made', 'probe.json');
  const probed = await load(2, file, small);
  const [entry] = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>[];
  expect(entry).toMatchObject({ threads: [2, 2], width: probed.exact.width, isDivided: probed.exact.atOnce > 1 });
  await probed.dispose();

  // A file from elsewhere spares the probe: it says what no probe here has found.
  const other = join(await temporaryFolder(), 'probe.json');
  writeFileSync(other, JSON.stringify([{ ...entry, threads: [3, 3], width: 5, isDivided: false, why: 'it was said' }]));
  const told = await load(3, other, small);
  expect(told.exact).toEqual({ holds: true, width: 5, atOnce: 1, why: 'it was said' });
  await told.dispose();
});

test('an outcome of another network, library, processor or number of threads is passed over', async () => {
  const wrong = [{ network: 'f'.repeat(64) }, { library: '1.0.0' }, { processor: 'none' }, { threads: [7, 9] }].map(
    (part) => ({ ...shipped[0], options: '[2,99,{}]', threads: [1, 1], width: 3, ...part }),
  );
  const file = join(await temporaryFolder(), 'probe.json');
  writeFileSync(file, JSON.stringify(wrong));
  const model = await load(1, file);
  expect(model.exact.width).not.toBe(3);
  await model.dispose();
});

test.each([
  ['no JSON', '{', /not valid JSON/],
  ['another file', '{"width": 3}', /expected what probes of networks found/],
])('%s is refused', async (_, text, says) => {
  const file = join(await temporaryFolder(), 'probe.json');
  writeFileSync(file, text);
  sentence(await rejection(() => load(4, file)), 'ERR_CONFIG', says);
});
