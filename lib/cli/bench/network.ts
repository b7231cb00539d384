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

/** A pipeline with the built-in model. */
export interface NetworkResult {
  way: Way;
  batch: number;
  steps: number;
  /** Wall time of a run, the median. */
  seconds: number;
  /** The part that is not spent in the network where each call of it is waited for, the median. */
  outside: number;
  /** The longest of all runs, and the median of their p99. */
  held: Held;
}

/** One call of a network that multiplies its states by sigma: what a call costs besides the network's work. */
export interface CallResult {
  shape: string;
  /** Median microseconds. */
  ours: number;
  theirs: number;
}

export interface NetworkBenchResult {
  runs: NetworkResult[];
  /** How the machine itself holds the loop while so many threads compute. */
  machine: { threads: number; held: Held }[];
  calls: CallResult[];
}

/** out_sample = sample timestep for states [n, c, h, w] and one timestep for all; ONNX's opset 17. */
const product =
  'CAhCAhAROpIBCiMKBnNhbXBsZQoIdGltZXN0ZXASCm91dF9zYW1wbGUiA011bBIHcHJvZHVjdFokCgZzYW1wbGUSGgoYCAESFAoDEgFuCgMSAWMKAxIBaAoDEgF3WhIKCHRpbWVzdGVwEgYKBAgBEgBiKAoKb3V0X3NhbXBsZRIaChgIARIUCgMSAW4KAxIBYwoDEgFoCgMSAXc=';

const batches = [1, 16, 64];
const steps = 100;
/** Seconds of a batch's runs after which there are enough of them to take the median. */
const enough = 20;
const secondsBeside = 5;
const turns = 7;
const shapes = [
  [1, 3, 256, 256],
  [8, 3, 256, 256],
];

/** The built-in model through OnnxModel and through an onnxruntime-node session, in turns. */
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

/** Times runs with a model, one after another. */
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
      const whole = await run(waited); // which warms up, too
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
    // In turns: what else the machine does meets both.
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
