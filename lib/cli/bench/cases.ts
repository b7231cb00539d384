import {
  Dtype,
  NoiseKind,
  Row,
  RowKind,
  RowNormals,
  type NonFinite,
  type StateMemory,
  type StepArgs,
  type StepSize,
} from '../../native/abi';
import { native } from '../../native/addon';
import { Generator } from '../../random/generator';
import { ScoreSdeVeScheduler } from '../../scheduler/scheduler';

/** 32x32 (CIFAR-10), 256x256 and 1024x1024 images, in usual batches. */
export const shapes: readonly (readonly number[])[] = [
  [1, 3, 32, 32],
  [16, 3, 32, 32],
  [64, 3, 32, 32],
  [1, 3, 256, 256],
  [8, 3, 256, 256],
  [16, 3, 256, 256],
  [1, 3, 1024, 1024],
  [4, 3, 1024, 1024],
];

export type BenchType = 'float32' | 'float16';
type Engine = 'philox' | 'torch';

/** The operations that torch_peer.py times. */
export type PeerOp = 'randn' | 'step_pred' | 'step_correct' | 'add_noise';

export interface Case {
  op: string;
  engine: Engine | '-';
  dims: readonly number[];
  type: BenchType;
  /** Bytes an element, if each tensor is read or written once. */
  bytes: number;
  /** Normals drawn an element. */
  normals: number;
  peer?: PeerOp;
  sync: () => unknown;
  async: () => Promise<unknown>;
}

/** A value made at its first use: a case that is only listed allocates nothing. */
function lazy<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}

/** The operations on one shape, through the public interface but for `linear`. Each has `out`, so that none allocates. */
export function casesOf(dims: readonly number[], type: BenchType): Case[] {
  const scheduler = new ScoreSdeVeScheduler();
  const draw = (seed: number) => lazy(() => new Generator(seed).randn(dims, { type }));
  const [sample, score, out, outMean] = [draw(1), draw(2), draw(3), draw(4)];
  const [first, second] = [draw(5), draw(6)];
  const width = type === 'float32' ? 4 : 2;
  const indices = Array.from({ length: dims[0]! }, () => 1000);
  const common = { dims, type, normals: 1 };

  const randn = (engine: Engine): Case => {
    const generator = new Generator(4, { engine });
    return {
      ...common,
      op: 'randn',
      engine,
      bytes: width,
      peer: 'randn',
      sync: () => generator.randn(dims, { type, out: out() }),
      async: () => generator.randnAsync(dims, { type, out: out() }),
    };
  };
  const stepPred = (engine: Engine, withMean: boolean): Case => {
    const generator = new Generator(4, { engine });
    const options = lazy(() =>
      withMean ? { generator, out: out(), outMean: outMean() } : { generator, out: out(), returnMean: false },
    );
    return {
      ...common,
      op: withMean ? 'stepPred, mean' : 'stepPred',
      engine,
      bytes: (withMean ? 4 : 3) * width,
      peer: 'step_pred',
      sync: () => scheduler.stepPred(score(), 0.5, sample(), options()),
      async: () => scheduler.stepPredAsync(score(), 0.5, sample(), options()),
    };
  };
  const stepCorrect = (engine: Engine, stepSize: StepSize): Case => {
    const options = lazy(() => ({ generator: new Generator(4, { engine }), out: out(), stepSize, sigma: 1 }));
    return {
      ...common,
      op: `stepCorrect ${stepSize}`,
      engine,
      bytes: 3 * width,
      peer: stepSize === 'batch' ? 'step_correct' : undefined,
      sync: () => scheduler.stepCorrect(score(), sample(), options()),
      async: () => scheduler.stepCorrectAsync(score(), sample(), options()),
    };
  };
  /**
   * A solver's update of that order as a run makes it: x, the score and the D's kept are read, x' is written to x, and this D in
   * place of the oldest. Its weights let x come to rest.
   */
  const linear = (order: 1 | 2 | 3, isNoisy = false): Case => {
    const record = new Float32Array(Row.size);
    const streams = new BigUint64Array(2 * dims[0]!).map((_, i) => BigInt(i));
    record[Row.kind] = RowKind.linear;
    record[Row.converts] = 1;
    record[Row.terms] = order;
    record.set([1, 1], Row.px);
    record.set([0.5, 0.3, -0.1, 0.1].slice(0, 1 + order), Row.a);
    if (isNoisy) {
      record[Row.e] = 0.1;
      record[Row.normals] = RowNormals.drawn;
    }
    const memoryOf = (tensor: () => { data: unknown }) => [tensor().data as StateMemory, Dtype[type]] as const;
    const none = [null, Dtype.float32] as const;
    const args = lazy((): StepArgs => {
      const history = [first, second].slice(0, order - 1);
      const oldest = history.at(-1);
      return [
        dims[0]!,
        sample().size / dims[0]!,
        record,
        ...memoryOf(sample),
        ...memoryOf(score),
        ...(isNoisy ? ([NoiseKind.philox, streams, Dtype.float32] as const) : ([NoiseKind.none, ...none] as const)),
        ...memoryOf(sample),
        ...none,
        ...(oldest === undefined ? none : memoryOf(oldest)),
        ...none,
        ...none,
        history.length,
        ...history.flatMap(memoryOf),
      ];
    });
    return {
      ...common,
      op: `linear ${order}${isNoisy ? ', noise' : ''}`,
      engine: isNoisy ? 'philox' : '-',
      bytes: [3, 5, 6][order - 1]! * width,
      normals: isNoisy ? 1 : 0,
      sync: (): NonFinite => native.step(...args()),
      async: (): Promise<NonFinite> => native.stepAsync([], ...args()),
    };
  };
  return [
    randn('philox'),
    randn('torch'),
    stepPred('philox', false),
    stepPred('philox', true),
    stepPred('torch', false),
    ...(['batch', 'sample', 'dim', 'ald'] as const).map((stepSize) => stepCorrect('philox', stepSize)),
    stepCorrect('torch', 'batch'),
    {
      ...common,
      op: 'addNoise',
      engine: '-',
      bytes: 3 * width,
      normals: 0,
      peer: 'add_noise',
      sync: () => scheduler.addNoise(sample(), score(), indices, { out: out() }),
      async: () => scheduler.addNoiseAsync(sample(), score(), indices, { out: out() }),
    },
    linear(1),
    linear(2),
    linear(3),
    linear(3, true),
  ];
}
