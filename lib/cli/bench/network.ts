import { performance } from 'node:perf_hooks';
import { getNumThreads } from '../../devices';
import { OnnxModel } from '../../models/onnx';
import { folderOf, networkOf } from '../../models/pretrained';
import type { ScoreModel } from '../../models/model';
import { onnxRuntime } from '../../models/runtime';
import { fromInferenceSession, type SessionModel } from '../../models/session';
import { Generator } from '../../random/generator';
import { ScoreSdeVePipeline } from '../../sampling/pipeline';
import { ScoreSdeVeScheduler } from '../../scheduler/scheduler';
import { Tensor } from '../../tensor/tensor';
import { heldBeside, heldDuring, timeAsync, type Held } from './measure';

type Way = 'OnnxModel' | 'onnxruntime-node';

/** A pipeline with the built-in model. */
export interface NetworkResult {
  way: Way;
  batch: number;
  steps: number;
  /** Wall time of the run. */
  seconds: number;
  /** The part that was not spent in the network, of a run that waits for each call of it. */
  outside: number;
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
/** Seconds of runs of one batch after which there are enough of them to take the median. */
const enough = 10;
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
    const times = new Map<Way, NetworkResult[]>(models.map(([way]) => [way, []]));
    const spent = () => [...times.values()].flat().reduce((total, run) => total + run.seconds, 0);
    do for (const [way, model] of models) times.get(way)!.push({ way, batch, steps, ...(await timeRun(model, batch)) });
    while (spent() < enough);
    for (const [, of] of times) {
      const median = of.sort((a, b) => a.seconds - b.seconds)[of.length >> 1]!;
      runs.push(median);
      tell(median);
    }
  }
  for (const [, model] of models) await model.dispose();
  const machine: NetworkBenchResult['machine'] = [];
  for (const threads of [0, getNumThreads()]) machine.push({ threads, held: await heldBeside(threads, secondsBeside) });
  return { runs, machine, calls: await timeCalls(seconds) };
}

async function timeRun(model: OnnxModel | SessionModel, batchSize: number) {
  const run = async (by: ScoreModel, numInferenceSteps: number): Promise<number> => {
    const scheduler = new ScoreSdeVeScheduler({ sigmaMax: 50 });
    const pipeline = new ScoreSdeVePipeline({ scheduler, model: by, sampleShape: [1, 28, 28] });
    return (await pipeline.run({ batchSize, numInferenceSteps, seed: 1, modelInputs: { class_labels: 3 } })).seconds;
  };
  await run(model, 2);
  let seconds = 0;
  const held = await heldDuring(async () => (seconds = await run(model, steps)));
  let inside = 0;
  const timed: ScoreModel = async (...args) => {
    const start = performance.now();
    const score = await model(...args);
    inside += (performance.now() - start) / 1000;
    return score;
  };
  timed.prepare = (dims, inputs) => model.prepare(dims, inputs);
  const waiting = await run(timed, steps / 10);
  return { seconds, outside: 1 - inside / waiting, held };
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
    const [one, other] = times.map((list) => list.sort((a, b) => a - b)[turns >> 1]!);
    results.push({ shape: dims.join('x'), ours: one!, theirs: other! });
  }
  await ours.dispose();
  await theirs.dispose();
  return results;
}
