import type { NetworkKind } from '../lib';
import { checkKind } from '../lib/models/network/check';
import { kindText } from '../lib/models/network/kind-text';
import {
  batched,
  clusters,
  networkOf,
  normal,
  smooth,
  untrained,
  type Denoiser,
  type OneSample,
} from './support/kinds';

// Exact networks of every kind, said to be of every other: which are found, and as what.

const sigmaRange = [0.01, 50] as const;
const predictions = ['score', 'denoised', 'noise', 'v_prediction'] as const;
const conditionings = ['sigma', 'log_sigma', 'log_sigma_quarter', { t: sigmaRange }, { tutorial: 25 }] as const;
const kinds: NetworkKind[] = [
  ...conditionings.flatMap((conditioning) => predictions.map((prediction) => ({ prediction, conditioning }))),
  ...(['edm', 've', { sigmaData: 1 }] as const).map((preconditioning) => ({ preconditioning })),
];

type Range = readonly [number, number] | undefined;

const check = (network: OneSample, dims: readonly number[], kind: NetworkKind, dataRange: Range) =>
  checkKind({ dims, kind: { ...kind, dataRange }, sigmaRange, run: batched(network) });

describe.each<[string, number[], Range, Denoiser]>([
  ['normal data', [1, 8, 8], undefined, normal(0.5, 0.2)],
  ['narrow data', [3, 8, 8], undefined, normal(0.3, 0.05)],
  ['smooth data in [-1, 1]', [1, 8, 8], [-1, 1], smooth(0, 2.4, 64)],
  [
    'clusters',
    [2],
    undefined,
    clusters(
      [
        [0.2, 0.3],
        [0.8, 0.2],
        [0.6, 0.9],
      ],
      0.05,
    ),
  ],
])('%s', (_, dims, dataRange, D) => {
  test('every kind is what it is', async () => {
    for (const kind of kinds)
      expect([kind, await check(networkOf(D, kind), dims, kind, dataRange)]).toEqual([
        kind,
        { fits: true, why: expect.stringMatching(/^it acts as a/) },
      ]);
  });

  test('every kind as the default, and as six others: none is named wrong, and 97 of 100 are named', async () => {
    const found = { right: 0, wrong: [] as unknown[], missed: [] as unknown[] };
    for (const [i, kind] of kinds.entries()) {
      const network = networkOf(D, kind);
      const others = [0, ...[1, 4, 7, 12, 16, 20].map((step) => (i + step) % kinds.length)];
      for (const said of new Set(others)) {
        if (said === i) continue;
        const { fits, instead } = await check(network, dims, kinds[said]!, dataRange);
        if (instead === undefined) found.missed.push([kind, kinds[said], fits]);
        else if (kindText(instead) === kindText({ ...kind, dataRange })) found.right++;
        else found.wrong.push([kind, kinds[said], instead]);
      }
    }
    expect(found.wrong).toEqual([]);
    expect(found.missed.length).toBeLessThan(0.03 * found.right);
    expect(found.right).toBeGreaterThan(6 * kinds.length - 10);
  });
});

test('no kind is named of a network that was not trained', async () => {
  for (let seed = 1; seed <= 2; seed++)
    for (const gain of [0.01, 1])
      for (const kind of [kinds[0]!, kinds[1]!, kinds[2]!, kinds[3]!, kinds[20]!])
        expect([seed, gain, kind, (await check(untrained(seed, 64, gain), [64], kind, undefined)).instead]).toEqual([
          seed,
          gain,
          kind,
          undefined,
        ]);
});

test('nothing is told from noise levels that are nearly one', async () => {
  const found = await checkKind({
    dims: [64],
    kind: {},
    sigmaRange: [0.2, 0.9],
    run: batched(networkOf(normal(0.5, 0.2), {})),
  });
  expect(found).toEqual({ fits: undefined, why: expect.stringContaining('too few, or too low, to tell') });
});

test('what gives no numbers is none of them, and what cannot be called says so', async () => {
  const dims = [64];
  const nan: OneSample = (seen) => seen.map(() => NaN);
  expect(await check(nan, dims, {}, undefined)).toMatchObject({ fits: undefined });
  const broken: OneSample = () => {
    throw new Error('no network');
  };
  await expect(check(broken, dims, {}, undefined)).rejects.toThrow('no network');
});
