import { Generator, ScoreSdeVePipeline, ScoreSdeVeScheduler, solvers, type StepsOptions } from '../lib';
import { native } from '../lib/native/addon';
import { solverOf } from '../lib/solvers';
import { devices, elementsOf } from './support/devices';
import { bitEqual } from './support/golden';
import { failure, rejection, sentence } from './support/refusals';
import { isAdaptive, mixture, pipelineOn, samplesOf, solverCases, streams, type Streams } from './support/requests';

const rows = 7;
const shift = Array.from({ length: rows }, (_, i) => 0.1 * i);

/** All but those whose samples depend on each other. */
const divisible = solverCases.filter(({ options }) => options.stepSize !== 'batch');

describe.each(devices)('on %s', (device) => {
  const pipeline = pipelineOn(device);

  describe.each<Streams>(['seed', 'torch each'])('streams: %s', (kind) => {
    test.each(divisible)('the samples of $name do not depend on how many go at once', async ({ options }) => {
      // With generators the reference's corrector measures the whole batch.
      const isMeasured = ['pc', 'langevin'].includes(options.solver as string) && options.corrector === undefined;
      const own = isMeasured ? { stepSize: 'sample' as const, ...options } : options;
      const given = () => ({ ...own, batchSize: rows, ...streams(kind, 3, rows), modelInputs: { shift } });
      const expected = await samplesOf(pipeline, given());
      for (const maxRows of [1, 3, rows, 100]) bitEqual(await samplesOf(pipeline, { ...given(), maxRows }), expected);
    });
  });

  test('no more are in work at once, and the model is told no more', async () => {
    const seen: number[] = [];
    const watched = pipelineOn(device, (...args) => {
      seen.push(args[0].dims[0]!);
      return mixture(...args);
    });
    const { calls } = await watched.run({ calls: 4, batchSize: rows, seed: 1, maxRows: 3 });
    expect(calls).toBe(4);
    expect(seen).toEqual([3, 3, 3, 3, 3, 3, 3, 3, 1, 1, 1, 1]);
  });

  test('progress counts the steps of all', async () => {
    const told: number[][] = [];
    const onProgress = ({ step, total, calls }: { step: number; total: number; calls: number }) =>
      void told.push([step, total, calls]);
    await pipeline.run({ calls: 4, batchSize: rows, seed: 1, maxRows: 3, onProgress });
    expect(told).toEqual(Array.from({ length: 12 }, (_, i) => [i + 1, 12, i + 1]));
  });

  test.each(divisible.filter(({ options }) => !isAdaptive(options)))(
    'saved at every stage, $name goes on',
    async ({ options }) => {
      const given = { ...options, batchSize: 5, seed: 9, maxRows: 2, modelInputs: { shift: shift.slice(0, 5) } };
      const expected = await samplesOf(pipeline, given);
      const run = pipeline.start(given);
      for (;;) {
        const bytes = await run.save().catch(() => undefined);
        if (bytes === undefined) break;
        bitEqual(await elementsOf((await pipeline.resume(bytes).result).samples), expected);
      }
      await run.result;
    },
  );

  test('a run begins with a sample, part by part', async () => {
    const sample = new Generator(1).randn([rows, ...pipeline.sampleShape]);
    const given: StepsOptions = { solver: 'er_sde', numInferenceSteps: 5, sample, sigmaStart: 2, seed: 4 };
    bitEqual(await samplesOf(pipeline, { ...given, maxRows: 2 }), await samplesOf(pipeline, given));
  });
});

test.each<[string, StepsOptions, 'ERR_RANGE' | 'ERR_CONFIG', RegExp]>([
  ['0', { maxRows: 0 }, 'ERR_RANGE', /maxRows must be an integer >= 1, got 0/],
  ['a fraction', { maxRows: 1.5 }, 'ERR_RANGE', /maxRows must be an integer >= 1/],
  ['one generator', { maxRows: 2, generator: new Generator(1) }, 'ERR_CONFIG', /give a seed, or a generator for each/],
  [
    'norms of the whole batch',
    { maxRows: 2, seed: 1, solver: solvers.predictorCorrector({ stepSize: 'batch' }) },
    'ERR_CONFIG',
    /stepSize 'batch' measures all of them together/,
  ],
])('%s is refused', (_, options, code, says) => {
  sentence(
    failure(() => pipelineOn('cpu').start({ batchSize: 4, ...options })),
    code,
    says,
  );
});

test('the steps of parts cannot be read', async () => {
  const run = pipelineOn('cpu').start({ calls: 3, batchSize: 4, seed: 1, maxRows: 2 });
  const read = async () => {
    for await (const _ of run);
  };
  sentence(await rejection(read), 'ERR_CONFIG', /maxRows leaves no steps that the samples of a batch have in common/);
});

describe('memory', () => {
  const sampleShape = [3, 256, 256];
  const bytes = 4 * 3 * 256 * 256;
  /** A network that writes where it is asked to. */
  const inPlace = new ScoreSdeVePipeline({
    scheduler: new ScoreSdeVeScheduler({ sigmaMin: 0.01, sigmaMax: 8 }),
    model: (sample, sigma, _inputs, context) => {
      const [out, level] = [context!.out!, sigma.data[0]!];
      out.data.set(sample.data.map((value) => (0.5 - value) / (0.09 + level * level)));
      return out;
    },
    sampleShape,
    device: 'cpu',
  });

  /** The tensors' memory that the addon gives during a run, when, and what is held at most. */
  async function allocations(options: StepsOptions) {
    const [made, allocate] = [[] as { call: number; buffer: ArrayBuffer }[], native.allocate.bind(native)];
    let [call, most] = [0, 0];
    const spy = jest.spyOn(native, 'allocate').mockImplementation((size) => {
      const buffer = allocate(size);
      made.push({ call, buffer });
      // What is disposed of is detached, and has no bytes.
      most = Math.max(
        most,
        made.reduce((sum, { buffer: { byteLength } }) => sum + byteLength, 0),
      );
      return buffer;
    });
    try {
      await inPlace.run({ ...options, onProgress: ({ calls }) => (call = calls) });
      return { most, late: made.filter(({ call: at, buffer }) => at > 2 && buffer.byteLength >= bytes) };
    } finally {
      spy.mockRestore();
    }
  }

  test.each(solverCases)(
    '$name takes no memory as it goes, and as much as its updates read and write',
    async ({ options }) => {
      const { solver, numInferenceSteps: _, ...rest } = options;
      const { most, late } = await allocations({ ...options, seed: 1, batchSize: 1 });
      // The images of the result, which are made last.
      expect(late.length).toBeLessThanOrEqual(1);
      const own = Object.fromEntries(Object.entries(rest).filter(([name]) => name !== 'grid' && name !== 'start'));
      // x, the score, and a corrector's noise beside the values of the calls before; an adaptive step has three states more.
      const more = isAdaptive(options) ? 3 : 0;
      expect(most).toBeLessThanOrEqual((3 + more + solverOf(solver!, own).history) * bytes);
    },
  );

  test('with er_sde it is four samples: x, two values of calls before, and the score', async () => {
    const { most } = await allocations({ calls: 12, seed: 1 });
    expect(most).toBe(4 * bytes);
  });
});
