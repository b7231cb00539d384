import {
  Generator,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  Tensor,
  type ScoreModel,
  type StepsOptions,
} from '../../lib';
import { Lane } from '../../lib/sampling/lane';
import { planOf } from '../../lib/sampling/plan';
import { solverNames } from '../../lib/solvers';
import { elementsOf } from './devices';
import { formula } from './models';

// Requests of all kinds over one network, each with the samples that it makes alone.

const weights = [0.3, 0.5, 0.2];
const stds = [0.05, 0.1, 0.02];
const means: [number, number][] = [
  [0.2, 0.8],
  [0.7, 0.3],
  [0.5, 0.5],
];
const gmm = formula({ name: 'gmm', weights, means, stds });

export const sampleShape = [6];

/** The number of a row in one of the network's inputs; a missing input is 0 for all. */
export function ofRow(inputs: Record<string, unknown> | undefined, name: string, row: number): number {
  const value = inputs?.[name] ?? 0;
  if (typeof value === 'number') return value;
  const list = ('data' in (value as object) ? (value as Tensor).data : value) as ArrayLike<number>;
  return Number(list[list.length === 1 ? 0 : row]);
}

/** The exact score of a mixture of Gaussians, moved by the input `shift`, each row by its own sigma: no row depends on another. */
export const mixture: ScoreModel = (sample, sigma, inputs) => {
  const cols = sample.size / sample.dims[0]!;
  const score = new Float32Array(sample.size);
  sigma.data.forEach((level, row) => {
    const shift = ofRow(inputs, 'shift', row);
    const x = sample.data.slice(row * cols, (row + 1) * cols).map((value) => value - shift);
    score.set(gmm(x, level), row * cols);
  });
  return new Tensor('float32', score, sample.dims);
};

export const config = { numTrainTimesteps: 6, sigmaMin: 0.01, sigmaMax: 8, snr: 0.17 };

export const pipelineOn = (device: string, model: ScoreModel = mixture, shape: readonly number[] = sampleShape) =>
  new ScoreSdeVePipeline({ scheduler: new ScoreSdeVeScheduler(config), model, sampleShape: shape, device });

/** A solver with its options, as run options; `rows`: the samples that it takes at once. */
export interface SolverCase {
  readonly name: string;
  readonly options: StepsOptions;
}

const named = (name: string, options: StepsOptions = {}): SolverCase => ({
  name: [name, ...Object.values(options).map((value) => JSON.stringify(value))].join(' '),
  options: { solver: name, ...(name === 'dpm_adaptive' ? {} : { numInferenceSteps: 4 }), ...options },
});

export const isAdaptive = ({ solver }: StepsOptions): boolean => solver === 'dpm_adaptive';

/** Every solver, and the options that change how it goes on. */
export const solverCases: readonly SolverCase[] = [
  ...solverNames.map((name) => named(name)),
  named('pc', { stepSize: 'batch' }),
  named('pc', { stepSize: 'dim', correctSteps: 2 }),
  named('pc', { corrector: 'ald', predictor: 'ancestral_sampling' }),
  named('langevin', { compat: 'score_sde', correctSteps: 2 }),
  named('er_sde', { eta: 0, start: 'zero' }),
  named('dpmpp_2m_sde', { grid: 've' }),
  named('heun', { churn: { amount: 3 } }),
  named('ipndm', { start: 'zero' }),
  named('unipc', { grid: [5, 2, 1, 0.3, 0.1], numInferenceSteps: undefined }),
  named('dpm_adaptive', { order: 2, rtol: 0.02 }),
  named('dpm_adaptive', { hInit: 2.5, rtol: 0.01 }),
];

export type Streams = 'seed' | 'philox' | 'torch' | 'philox each' | 'torch each';
export const streamKinds: readonly Streams[] = ['seed', 'philox', 'torch', 'philox each', 'torch each'];

/** Where a run's draws come from, as run options: new generators at each call. */
export function streams(kind: Streams, seed: number, rows: number): StepsOptions {
  if (kind === 'seed') return { seed };
  const [engine, each] = kind.split(' ') as ['philox' | 'torch', string?];
  const generators = Array.from({ length: each ? rows : 1 }, (_, i) => new Generator(seed + i, { engine }));
  return { generator: each ? generators : generators[0]! };
}

/** A lane that does what the pipeline's run of these options does. */
export function laneOf(pipeline: ScoreSdeVePipeline, options: StepsOptions, firstSample = 0): Lane {
  const { model, sampleShape, device, scheduler } = pipeline;
  const plan = planOf({ model, sampleShape, device, config: scheduler.config }, options);
  return new Lane({ ...plan, rows: plan.dims[0]!, firstSample });
}

export const samplesOf = async (pipeline: ScoreSdeVePipeline, options: StepsOptions): Promise<Float32Array> =>
  (await elementsOf((await pipeline.run(options)).samples)).slice();

/** Whole numbers below n, the same ones every time. */
export function randomly(seed: number): (n: number) => number {
  const generator = new Generator(seed);
  const words = generator.randn([4096]).data;
  let at = 0;
  return (n) => Math.floor(Math.abs(words[at++ % words.length]!) * 1e4) % n;
}
