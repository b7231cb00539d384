import { performance } from 'node:perf_hooks';
import { getNumThreads } from '../../devices';
import { OnnxModel } from '../../models/onnx/model';
import { folderOf, networkOf } from '../../sampling/pretrained';
import type { ScoreModel } from '../../models/model';
import { onnxRuntime } from '../../models/onnx/runtime';
import { fromInferenceSession, type SessionModel } from '../../models/session';
import { Generator } from '../../random/generator';
import { ScoreSdeVePipeline } from '../../sampling/pipeline';
import { ScoreSdeVeScheduler } from '../../scheduler/scheduler';
import { Tensor } from '../../tensor/tensor';
import { heldBeside, heldDuring, median, timeAsync, type Held } from './measure';

type Way = 'OnnxModel' | 'onnxruntime-node';

/** Runs of a pipeline with the built-in model. */
export interface NetworkResult {
  way: Way;
  batch: number;
  steps: number;
  /** Median wall time of a run. */
  seconds: number;
  /** Median share of a run outside the network, in runs that await each call of it. */
  outside: number;
  /** The longest of all runs, and the median of their p99. */
  held: Held;
}

/** One call of a network that multiplies its states by sigma: the cost of a call without a network's work. */
export interface CallResult {
  shape: string;
  /** Median microseconds. */
  ours: number;
  theirs: number;
}

export interface NetworkBenchResult {
  runs: NetworkResult[];
  /** For how long the event loop is blocked while `threads` threads compute and this package does nothing. */
  machine: { threads: number; held: Held }[];
  calls: CallResult[];
}

/** An ONNX network, opset 17: out_sample = sample * timestep, with states [n, c, h, w] and one timestep for all. */
const product =
  'CAhCAhAROpIBCiMKBnNhbXBsZQoIdGltZXN0ZXASCm91dF9zYW1wbGUiA011bBIHcHJvZHVjdFokCgZzYW1wbGUSGgoYCAESFAoDEgFuCgMSAWMKAxIBaAoDEgF3WhIKCHRpbWVzdGVwEgYKBAgBEgBiKAoKb3V0X3NhbXBsZRIaChgIARIUCgMSAW4KAxIBYwoDEgFoCgMSAXc=';

const batches = [1, 16, 64];
const steps = 100;
/** Seconds of runs for each batch size. */
const enough = 20;
const secondsBeside = 5;
const turns = 7;
const shapes = [
  [1, 3, 256, 256],
  [8, 3, 256, 256],
];

/** Times the built-in model through OnnxModel and through an onnxruntime-node session, in turns. */
export async function benchNetworks(seconds: number, tell: (line: NetworkResult) => void): Promise<NetworkBenchResult> {
  const file = networkOf(folderOf('digits'));
  const { InferenceSession } = onnxRuntime();
  const models: [Way, OnnxModel | SessionModel][] = [
    ['OnnxModel', await OnnxModel.load(file)],
    ['onnxruntime-node', fromInferenceSession(await InferenceSession.create(file, {}))],
  ];
  const runs: NetworkResult[] = [];
  for (const batch of batches) {
    const timed = models.map(([way, model]) => ({ way, ...timer(model, batch) }));
    const start = performance.now();
    do for (const { time } of timed) await time();
    while (performance.now() - start < 1000 * enough);
    for (const { way, result } of timed) {
      const run = { way, batch, steps, ...result() };
      runs.push(run);
      tell(run);
    }
  }
  for (const [, model] of models) await model.dispose();
  const machine: NetworkBenchResult['machine'] = [];
  for (const threads of [0, getNumThreads()]) machine.push({ threads, held: await heldBeside(threads, secondsBeside) });
  return { runs, machine, calls: await timeCalls(seconds) };
}

/** `time` times a run with a model; `result` sums up. */
function timer(model: OnnxModel | SessionModel, batchSize: number) {
  const run = async (by: ScoreModel): Promise<number> => {
    const scheduler = new ScoreSdeVeScheduler({ sigmaMax: 50 });
    const pipeline = new ScoreSdeVePipeline({ scheduler, model: by, sampleShape: [1, 28, 28] });
    const options = { batchSize, numInferenceSteps: steps, seed: 1, modelInputs: { class_labels: 3 } };
    return (await pipeline.run(options)).seconds;
  };
  let inside = 0;
  const waited: ScoreModel = async (...args) => {
    const start = performance.now();
    const score = await model(...args);
    inside += (performance.now() - start) / 1000;
    return score;
  };
  waited.prepare = (dims, inputs) => model.prepare(dims, inputs);
  const [seconds, outside]: [number[], number[]] = [[], []];
  const held: Held[] = [];
  return {
    time: async () => {
      inside = 0;
      const whole = await run(waited); // this run is the warm-up, too
      outside.push(1 - inside / whole);
      held.push(await heldDuring(async () => seconds.push(await run(model))));
    },
    result: () => ({
      seconds: median(seconds),
      outside: median(outside),
      held: { longest: Math.max(...held.map(({ longest }) => longest)), p99: median(held.map(({ p99 }) => p99)) },
    }),
  };
}

async function timeCalls(seconds: number): Promise<CallResult[]> {
  const bytes = new Uint8Array(Buffer.from(product, 'base64'));
  const ours = await OnnxModel.load(bytes, { exact: false });
  const theirs = fromInferenceSession(await onnxRuntime().InferenceSession.create(bytes, {}));
  const results: CallResult[] = [];
  for (const dims of shapes) {
    const sample = new Generator(1).randn(dims);
    const sigma = new Tensor('float32', new Float32Array(dims[0]!).fill(2), [dims[0]!]);
    const context = { out: Tensor.empty(dims) };
    // In turns, so that other work on the machine slows both alike.
    const times: [number[], number[]] = [[], []];
    for (let i = 0; i < turns; i++) {
      times[0].push((await timeAsync(() => ours.run(sample, sigma, {}, context), seconds)).median);
      times[1].push((await timeAsync(async () => theirs(sample, sigma), seconds)).median);
    }
    results.push({ shape: dims.join('x'), ours: median(times[0]), theirs: median(times[1]) });
  }
  await ours.dispose();
  await theirs.dispose();
  return results;
}
