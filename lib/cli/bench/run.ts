import { cpus } from 'node:os';
import { getNumThreads, setNumThreads } from '../../devices';
import { ScoreSdeError } from '../../errors';
import { NoiseKind } from '../../native/abi';
import { native } from '../../native/addon';
import { show } from '../../options';
import { Generator } from '../../random/generator';
import { ScoreSdeVePipeline } from '../../sampling/pipeline';
import { ScoreSdeVeScheduler } from '../../scheduler/scheduler';
import { Tensor } from '../../tensor/tensor';
import { casesOf, shapes, type BenchType, type Case, type PeerOp } from './cases';
import { heldDuring, timeAsync, timeSync, type Held, type Timing } from './measure';
import { timePeer, type PeerTimes } from './peer';

export interface BenchOptions {
  threads: number[];
  types: BenchType[];
  /** Seconds for each timing. */
  seconds: number;
  /** Only cases whose name contains this. */
  filter?: string;
  torch: boolean;
}

export interface CaseResult {
  shape: string;
  op: string;
  engine: string;
  type: BenchType;
  threads: number;
  /** Microseconds. */
  sync: Timing;
  async: Timing;
  /** Gigabytes a second, counting each tensor once. */
  rate: number;
  /** The least time by the rate of STREAM's triad over arrays of this size, divided by the time; the same by the rate of normals. */
  ofBandwidth: number;
  ofNormals: number | undefined;
  /** PyTorch's microseconds, and these divided by ours. */
  torch?: number;
  timesTorch?: number;
}

export interface Limits {
  threads: number;
  /** Normals a second. */
  philox: number;
  torch: number;
  /** Bytes a second, by shape. */
  stream: Record<string, { copy: number; triad: number }>;
}

export interface BenchResult {
  machine: Record<string, string | number>;
  limits: Limits[];
  cases: CaseResult[];
  /** Operations that do not depend on a shape, in microseconds. */
  fixed: { name: string; time: Timing; torch?: number; timesTorch?: number }[];
  /** For how long the event loop was blocked while eight pipelines ran, and while it had empty turns only. */
  loopDelay: { running: Held; empty: Held };
}

const nameOf = ({ op, engine, dims, type }: Case): string => `${dims.join('x')} ${op} ${engine} ${type}`;
const sizeOf = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

/**
 * Measures limits and every case at every number of threads, and PyTorch. Calls `tell` with each case.
 * @throws ScoreSdeError ERR_CONFIG where the filter leaves no case
 */
export async function runBench(options: BenchOptions, tell: (result: CaseResult) => void): Promise<BenchResult> {
  const { threads, types, seconds, filter, torch } = options;
  const before = getNumThreads();
  const wanted = (c: Case) => filter === undefined || nameOf(c).includes(filter);
  const chosen = shapes.filter((dims) => types.some((type) => casesOf(dims, type).some(wanted)));
  if (chosen.length === 0)
    throw new ScoreSdeError('ERR_CONFIG', `there is no case of ${types.join(' or ')} whose name holds ${show(filter)}`);
  const peer = torch ? peerOf(options, chosen, wanted) : undefined;
  const result: BenchResult = {
    machine: machineOf(peer),
    limits: [],
    cases: [],
    fixed: [],
    loopDelay: { running: { longest: 0, p99: 0 }, empty: { longest: 0, p99: 0 } },
  };
  try {
    for (const count of threads) {
      setNumThreads(count);
      const limits = limitsOf(count, chosen);
      result.limits.push(limits);
      for (const dims of chosen)
        for (const type of types)
          for (const c of casesOf(dims, type).filter(wanted)) {
            const measured = await measure(c, limits, seconds, peer);
            result.cases.push(measured);
            tell(measured);
          }
    }
    setNumThreads(before);
    result.fixed = fixedCosts(seconds, peer);
    result.loopDelay = await loopDelay();
  } finally {
    setNumThreads(before);
  }
  return result;
}

function peerOf(
  { threads, types, seconds }: BenchOptions,
  chosen: typeof shapes,
  wanted: (c: Case) => boolean,
): PeerTimes {
  const all = chosen.flatMap((dims) => types.flatMap((type) => casesOf(dims, type).filter(wanted)));
  const ops = new Set(all.flatMap(({ peer }): PeerOp[] => (peer ? [peer] : [])));
  return timePeer({ threads, shapes: chosen, types, seconds, ops: [...ops] });
}

function machineOf(peer: PeerTimes | undefined): BenchResult['machine'] {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cpus: cpus().length,
    instructionSet: native.instructionSet(),
    platform: `${process.platform}-${process.arch}`,
    node: process.version,
    date: new Date().toISOString().slice(0, 10),
    ...(peer && { torch: peer.version }),
  };
}

function limitsOf(threads: number, chosen: typeof shapes): Limits {
  return {
    threads,
    philox: native.normalRate(NoiseKind.philox),
    torch: native.normalRate(NoiseKind.torch),
    stream: Object.fromEntries(chosen.map((dims) => [dims.join('x'), native.streamRate(sizeOf(dims))])),
  };
}

async function measure(c: Case, limits: Limits, seconds: number, peer: PeerTimes | undefined): Promise<CaseResult> {
  const { op, engine, dims, type } = c;
  const [shape, size, { threads }] = [dims.join('x'), sizeOf(dims), limits];
  const sync = timeSync(c.sync, seconds);
  const async = await timeAsync(c.async, seconds);
  const taken = sync.median / 1e6;
  const torch = c.peer && peer?.time(c.peer, dims, type, threads);
  return {
    shape,
    op,
    engine,
    type,
    threads,
    sync,
    async,
    rate: (c.bytes * size) / taken / 1e9,
    ofBandwidth: (c.bytes * size) / limits.stream[shape]!.triad / taken,
    ofNormals: engine === '-' ? undefined : (c.normals * size) / limits[engine] / taken,
    torch,
    timesTorch: torch && torch / sync.median,
  };
}

function fixedCosts(seconds: number, peer: PeerTimes | undefined): BenchResult['fixed'] {
  const scheduler = new ScoreSdeVeScheduler();
  const tiny = new Generator(1).randn([1, 4]);
  const options = { generator: new Generator(2), out: Tensor.empty([1, 4]), returnMean: false };
  const beside = (time: Timing, torch: number | undefined) => ({
    time,
    torch,
    timesTorch: torch && torch / time.median,
  });
  const setBoth = () => {
    scheduler.setTimesteps(2000);
    scheduler.setSigmas(2000);
  };
  return [
    {
      name: 'constructor',
      ...beside(
        timeSync(() => new ScoreSdeVeScheduler(), seconds),
        peer?.tables,
      ),
    },
    { name: 'setTimesteps(2000), setSigmas(2000)', ...beside(timeSync(setBoth, seconds), peer?.tables) },
    { name: 'stepPred of 4 elements', time: timeSync(() => scheduler.stepPred(tiny, 0.5, tiny, options), seconds) },
    { name: 'stepCorrect of 4 elements', time: timeSync(() => scheduler.stepCorrect(tiny, tiny, options), seconds) },
  ];
}

/** For how long this package blocks the event loop: eight pipelines at once, with a model that takes no time. */
async function loopDelay(): Promise<BenchResult['loopDelay']> {
  const scheduler = new ScoreSdeVeScheduler();
  const runs = shapes.slice(0, 4).flatMap((dims) => [dims, dims]);
  const pipelines = runs.map((dims) => {
    const score = new Generator(1).randn(dims);
    return { dims, pipeline: new ScoreSdeVePipeline({ scheduler, model: () => score, sampleShape: dims.slice(1) }) };
  });
  const all = () =>
    Promise.all(
      pipelines.map(({ dims, pipeline }, seed) => pipeline.run({ batchSize: dims[0], numInferenceSteps: 200, seed })),
    );
  await all();
  const start = performance.now();
  const running = await heldDuring(all);
  const milliseconds = performance.now() - start;
  return { running, empty: await heldDuring(() => emptyTurns(milliseconds)) };
}

async function emptyTurns(milliseconds: number): Promise<void> {
  for (const end = performance.now() + milliseconds; performance.now() < end;) await new Promise(setImmediate);
}
