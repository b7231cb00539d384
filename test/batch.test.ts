import { ScoreSdeError, ScoreSdeVePipeline, Tensor, type ScoreModel, type StepsOptions } from '../lib';
import { Batch, type LaneState } from '../lib/sampling/batch';
import { Lane } from '../lib/sampling/lane';
import { solverOf } from '../lib/solvers';
import { devices, elementsOf } from './support/devices';
import { bitEqual } from './support/golden';
import { rejection, sentence } from './support/refusals';
import {
  isAdaptive,
  laneOf,
  mixture,
  ofRow,
  pipelineOn,
  randomly,
  sampleShape,
  samplesOf,
  solverCases,
  streamKinds,
  streams,
} from './support/requests';

interface Request {
  name: string;
  /** New generators at each call. */
  options: () => StepsOptions;
  alone: Float32Array;
}

const batchOf = (pipeline: ScoreSdeVePipeline, capacity: number, signal?: AbortSignal): Batch =>
  new Batch({ model: pipeline.model, sampleShape: pipeline.sampleShape, capacity, device: pipeline.device, signal });

/** What a lane holds, in memory of its own. */
async function detached(batch: Batch, lane: Lane): Promise<LaneState> {
  await batch.settle();
  const own = async (tensor: Tensor) => new Tensor('float32', (await elementsOf(tensor)).slice(), tensor.dims);
  const { x, history, base, low } = batch.state(lane);
  return {
    x: await own(x),
    history: await Promise.all(history.map(own)),
    base: base && (await own(base)),
    low: low && (await own(low)),
  };
}

/**
 * Runs all requests in one batch. They join at random moments, and now and then a lane leaves before its end, to come back
 * in other rows. Returns how many lanes were in the batch at most, and how often one left early.
 */
async function together(pipeline: ScoreSdeVePipeline, requests: readonly Request[], capacity: number, seed: number) {
  const random = randomly(seed);
  const batch = batchOf(pipeline, capacity);
  const waiting: { request: Request; lane: Lane; state?: LaneState }[] = requests.map((request) => ({
    request,
    lane: laneOf(pipeline, request.options()),
  }));
  const inside = new Map<Lane, Request>();
  let [most, moves] = [0, 0];
  while (waiting.length > 0 || inside.size > 0) {
    while (waiting.length > 0 && (inside.size === 0 || random(3) > 0)) {
      const [next] = waiting.splice(random(waiting.length), 1);
      const { lane, request, state } = next!;
      if (batch.rows + lane.rows > capacity) {
        waiting.push(next!);
        break;
      }
      await batch.join(lane, state);
      inside.set(lane, request);
    }
    most = Math.max(most, inside.size);
    await batch.advance();
    for (const [lane, request] of inside) {
      expect(lane.failure).toBeUndefined();
      const isOver = lane.done;
      if (!isOver && random(8) > 0) continue;
      const state = await detached(batch, lane);
      if (isOver) {
        try {
          bitEqual(await elementsOf(state.x), request.alone);
        } catch (cause) {
          throw new Error(`${request.name}: ${(cause as Error).message}`, { cause });
        }
      } else {
        moves++;
        const { place, solver, levels, rows, noise, inputs } = lane;
        waiting.push({ request, state, lane: new Lane({ solver, levels, rows, noise, inputs, place }) });
      }
      await batch.leave([lane]);
      inside.delete(lane);
    }
  }
  expect(batch.rows).toBe(0);
  await batch.dispose();
  return { most, moves };
}

describe.each(devices)('on %s', (device) => {
  const pipeline = pipelineOn(device);

  async function requestsOf(count: number, seed: number): Promise<Request[]> {
    const random = randomly(seed);
    const requests: Request[] = [];
    for (let i = 0; i < count; i++) {
      const { name, options } = solverCases[i % solverCases.length]!;
      const kind = streamKinds[random(streamKinds.length)]!;
      const batchSize = isAdaptive(options) ? 1 : 1 + random(3);
      const shifts = Array.from({ length: batchSize }, () => random(5) / 10);
      const isPc = name.startsWith('pc') || name.startsWith('langevin');
      const isTabled = solverOf(options.solver!).grid === 'reference';
      const own: StepsOptions = {
        ...options,
        batchSize,
        ...(typeof options.grid === 'object' || isAdaptive(options) ? {} : { numInferenceSteps: 1 + random(6) }),
        sigmaMax: [3, 8, 20][random(3)],
        sigmaMin: [0.01, 0.05][random(2)],
        ...(isTabled ? { samplingEps: [1e-5, 1e-3][random(2)] } : {}),
        ...(isPc ? { snr: [0.1, 0.16, 0.3][random(3)] } : {}),
        modelInputs: { shift: batchSize > 1 && random(2) > 0 ? shifts : shifts[0]! },
      };
      const options_ = () => ({ ...own, ...streams(kind, 100 * i, batchSize) });
      requests.push({ name: `${name}, ${kind}`, options: options_, alone: await samplesOf(pipeline, options_()) });
    }
    return requests;
  }

  test.each([1, 2, 3])('lanes of all kinds make what they make alone: schedule %i', async (seed) => {
    const requests = await requestsOf(solverCases.length, seed);
    const { most, moves } = await together(pipeline, requests, 16, seed);
    expect(most).toBeGreaterThan(3);
    expect(moves).toBeGreaterThan(3);
  });

  test('lanes that are as wide as the batch come and go', async () => {
    const requests = (await requestsOf(6, 4)).filter(({ alone }) => alone.length === sampleShape[0]! * 1);
    const all = await Promise.all(
      ['pc', 'er_sde', 'heun', 'ipndm'].map(async (solver, i): Promise<Request> => {
        const options = () => ({
          solver,
          numInferenceSteps: 3,
          batchSize: 3,
          ...streams('torch', i, 3),
          modelInputs: { shift: 0 },
        });
        return { name: solver, options, alone: await samplesOf(pipeline, options()) };
      }),
    );
    await together(pipeline, [...requests, ...all], 3, 5);
  });

  test('readers see the steps that they see alone', async () => {
    const options = { solver: 'er_sde', numInferenceSteps: 4, batchSize: 2, seed: 9 };
    const alone: Float32Array[] = [];
    for await (const { sample, mean, denoised } of pipeline.steps(options))
      for (const tensor of [sample, mean, denoised]) alone.push((await elementsOf(tensor)).slice());
    const batch = batchOf(pipeline, 6);
    const [lane, other] = [
      laneOf(pipeline, options),
      laneOf(pipeline, { solver: 'pc', numInferenceSteps: 7, seed: 1 }),
    ];
    batch.keeps = true;
    await batch.join(other);
    await batch.advance();
    await batch.join(lane);
    const seen: Float32Array[] = [];
    while (!lane.done) {
      await batch.advance();
      await batch.settle();
      for (const tensor of [batch.x(lane), batch.mean(lane), batch.denoised(lane)])
        seen.push((await elementsOf(tensor)).slice());
    }
    seen.forEach((values, i) => bitEqual(values, alone[i]!));
    await batch.dispose();
  });

  test('samples that are read as steps, and leave in the same turn', async () => {
    const all = [1, 2, 3].map((seed) => ({ solver: 'pc', numInferenceSteps: 3, batchSize: seed, seed }));
    const alone = await Promise.all(all.map((options) => samplesOf(pipeline, options)));
    const batch = batchOf(pipeline, 6);
    const lanes = all.map((options) => laneOf(pipeline, options));
    batch.keeps = true;
    for (const lane of lanes) await batch.join(lane);
    while (!lanes[0]!.done) await batch.advance();
    await batch.settle();
    for (const [i, lane] of lanes.entries()) {
      bitEqual(await elementsOf(await batch.take(lane)), alone[i]!);
      await batch.leave([lane]);
    }
    await batch.dispose();
  });

  test('a lane whose state does not fit is not in the batch', async () => {
    const batch = batchOf(pipeline, 3);
    const options = { solver: 'euler', numInferenceSteps: 3, seed: 1 };
    const lane = laneOf(pipeline, options);
    await batch.join(lane);
    const state = { x: Tensor.zeros([1, 5]), history: [] };
    sentence(await rejection(() => batch.join(laneOf(pipeline, options), state)), 'ERR_SHAPE', /sample/);
    expect([batch.rows, batch.lanes]).toEqual([1, [lane]]);
    while (!lane.done) await batch.advance();
    await batch.settle();
    bitEqual(await elementsOf(batch.state(lane).x), await samplesOf(pipeline, options));
    await batch.dispose();
  });

  describe('a lane whose values are not finite', () => {
    /** NaN in the second row of the requests that ask for it, at their own call. */
    const spoilt: ScoreModel = (sample, sigma, inputs, context) => {
      const score = mixture(sample, sigma, inputs, context) as Tensor<'float32'>;
      const cols = sample.size / sample.dims[0]!;
      for (let row = 0; row < sample.dims[0]!; row++)
        if (ofRow(inputs, 'bad', row) === 1 && sigma.data[row]! < 1) score.data[row * cols + 2] = NaN;
      return score;
    };
    const bad = pipelineOn(device, spoilt);
    const rows: [string, StepsOptions, number[], RegExp][] = [
      [
        'a corrector',
        { solver: 'pc', numInferenceSteps: 5 },
        [0, 1, 0],
        /^step 2 of 5 .*: the corrector gave .* in sample 1;/,
      ],
      [
        'a predictor',
        { solver: 'euler', numInferenceSteps: 5 },
        [0, 0, 1],
        /^step \d of 5 .*: the predictor gave .* in sample 2;/,
      ],
      [
        'all samples at once',
        { solver: 'pc', stepSize: 'batch', numInferenceSteps: 5 },
        [0, 1, 0],
        /^step 2 of 5 .*: the corrector gave .* in sample 0;/,
      ],
      ['an adaptive solver', { solver: 'dpm_adaptive' }, [1], /^step \d+ .*: the predictor gave .* in sample 0;/],
    ];
    test.each(rows)('fails alone: %s', async (_, options, marks, says) => {
      const neighbours = [
        { solver: 'pc', numInferenceSteps: 5, batchSize: 2, seed: 3, modelInputs: { bad: 0 } },
        { solver: 'dpmpp_2m', numInferenceSteps: 9, batchSize: 1, seed: 4, modelInputs: { bad: 0 } },
        { solver: 'dpm_adaptive', batchSize: 1, seed: 5, modelInputs: { bad: 0 } },
      ];
      const alone = await Promise.all(neighbours.map((each) => samplesOf(bad, each)));
      const batch = batchOf(bad, 8);
      const lanes = neighbours.map((each) => laneOf(bad, each));
      const given = { ...options, seed: 1, batchSize: marks.length, modelInputs: { bad: marks } };
      const lane = laneOf(bad, given);
      await batch.join(lanes[0]!);
      await batch.join(lane);
      await batch.join(lanes[1]!);
      await batch.join(lanes[2]!);
      const samples = new Map<Lane, Float32Array>();
      while (batch.lanes.length > 0) {
        await batch.advance();
        await batch.settle();
        for (const each of [...batch.lanes]) {
          if (each.failure !== undefined) expect(each).toBe(lane);
          if (each.failure === undefined && !each.done) continue;
          if (each.done) samples.set(each, (await elementsOf(batch.state(each).x)).slice());
          await batch.leave([each]);
        }
      }
      sentence(lane.failure as ScoreSdeError, 'ERR_NON_FINITE', says);
      lanes.forEach((each, i) => bitEqual(samples.get(each)!, alone[i]!));
      await batch.dispose();
      // As a run of its own it fails with the same words.
      const error = await rejection(() => bad.run(given));
      expect(error.message).toBe((lane.failure as ScoreSdeError).message);
    });

    test('of an adaptive run says which sample it was', async () => {
      const options = { solver: 'dpm_adaptive', seed: 1, batchSize: 3, modelInputs: { bad: [0, 0, 1] } };
      sentence(
        await rejection(() => bad.run(options)),
        'ERR_NON_FINITE',
        /^step \d+ .*: the predictor gave .* in sample 2;/,
      );
    });
  });

  test('a lane that does not fit, or whose inputs do not, changes nothing', async () => {
    const batch = batchOf(pipeline, 3);
    const options = { solver: 'euler', numInferenceSteps: 3, batchSize: 2, seed: 1, modelInputs: { shift: 0.25 } };
    const alone = await samplesOf(pipeline, options);
    const lane = laneOf(pipeline, options);
    await batch.join(lane);
    sentence(await rejection(() => batch.join(laneOf(pipeline, options))), 'ERR_STATE', /1 free rows, got a lane of 2/);
    const other = laneOf(pipeline, { ...options, batchSize: 1, modelInputs: {} });
    sentence(await rejection(() => batch.join(other)), 'ERR_CONFIG', /modelInputs.shift must be given by all/);
    expect(batch.rows).toBe(2);
    while (!lane.done) await batch.advance();
    await batch.settle();
    bitEqual(await elementsOf(batch.state(lane).x), alone);
    await batch.dispose();
  });

  test('an adaptive lane has one row', () => {
    expect(() => laneOf(pipeline, { solver: 'dpm_adaptive', batchSize: 2, seed: 1 })).toThrow(/has one row, got 2/);
  });
});

describe('inputs of lanes that share a call', () => {
  test('each row keeps its own, in arrays and tensors', async () => {
    const seen: Record<string, unknown>[] = [];
    const model: ScoreModel = (sample, sigma, inputs) => {
      seen.push({ ...inputs });
      return mixture(sample, sigma, {});
    };
    const pipeline = pipelineOn('cpu', model);
    const embedding = (value: number, rows: number) => ({
      data: new Float32Array(2 * rows).fill(value),
      dims: [rows, 2],
    });
    const lanes = [
      { batchSize: 2, modelInputs: { label: 7, scale: [1, 2], text: embedding(1, 2), big: 5n } },
      { batchSize: 1, modelInputs: { label: 8, scale: 3, text: embedding(2, 1), big: [6n] } },
      { batchSize: 3, modelInputs: { label: new Int32Array([1, 2, 3]), scale: 4, text: embedding(3, 3), big: 7n } },
    ].map((options) =>
      laneOf(pipeline, { solver: 'euler', numInferenceSteps: 2, seed: 1, ...options } as StepsOptions),
    );
    const batch = batchOf(pipeline, 6);
    for (const lane of lanes) await batch.join(lane);
    await batch.advance();
    expect(seen[0]).toEqual({
      label: [7, 7, 8, 1, 2, 3],
      scale: [1, 2, 3, 4, 4, 4],
      text: { data: Float32Array.from([1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]), dims: [6, 2] },
      big: [5n, 5n, 6n, 7n, 7n, 7n],
    });
    await batch.leave([lanes[1]!]);
    await batch.advance();
    expect(seen[1]).toMatchObject({ label: [7, 7, 1, 2, 3], scale: [1, 2, 4, 4, 4] });
    await batch.dispose();
  });

  test('the digits: with labels, without, and by other solvers', async () => {
    const digits = await ScoreSdeVePipeline.fromPretrained('digits', { device: 'cpu' });
    const requests: Request[] = [];
    const add = async (name: string, options: () => StepsOptions) =>
      void requests.push({ name, options, alone: await samplesOf(digits, options()) });
    await add('er_sde', () => ({ calls: 5, seed: 1, batchSize: 2, modelInputs: { class_labels: [3, 7] } }));
    await add('pc', () => ({ numInferenceSteps: 3, ...streams('torch', 2, 1), modelInputs: { class_labels: 5 } }));
    await add('heun', () => ({ solver: 'heun', calls: 5, seed: 3 }));
    await add('dpm_adaptive', () => ({ solver: 'dpm_adaptive', rtol: 0.5, atol: 0.5, hInit: 2, seed: 4 }));
    await together(digits, requests, 4, 6);
    await digits.dispose();
  });
});

test('a signal ends what a batch waits for', async () => {
  const controller = new AbortController();
  const pipeline = pipelineOn('cpu', () => new Promise(() => {}));
  const batch = batchOf(pipeline, 1, controller.signal);
  await batch.join(laneOf(pipeline, { seed: 1 }));
  const advanced = rejection(() => batch.advance());
  controller.abort();
  sentence(await advanced, 'ERR_ABORTED');
  await batch.dispose();
});
