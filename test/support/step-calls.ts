import { Generator, Tensor, type EngineName, type ScoreSdeVeScheduler, type StepOptions } from '../../lib';
import { goodDims } from './bad-tensors';
import { scheduler } from './edge';
import { bytesAround, dataOf, position } from './refusals';

export type Method = 'stepPred' | 'stepCorrect' | 'addNoise';

/** The arguments of a call, to be spoilt one at a time. `sample` and `timestep` are addNoise's original and timesteps. */
export interface StepCall {
  s: ScoreSdeVeScheduler;
  modelOutput: unknown;
  timestep: unknown;
  sample: unknown;
  options: StepOptions;
}

export const methods: Method[] = ['stepPred', 'stepCorrect', 'addNoise'];
export const engines: EngineName[] = ['philox', 'torch'];

/** What the method calls the argument. */
export const nameIn = (method: Method, argument: string): string =>
  method !== 'addNoise'
    ? argument
    : argument === 'sample'
      ? 'original'
      : argument === 'timestep'
        ? 'timesteps'
        : argument;

/** A call in which nothing is wrong. */
export function goodCall(method: Method, engine: EngineName = 'philox', device = 'cpu'): StepCall {
  const drawn = (seed: number) => new Generator(seed).randn(goodDims, { device });
  return {
    s: scheduler(),
    modelOutput: drawn(1),
    timestep: method === 'addNoise' ? 3 : 0.5,
    sample: drawn(2),
    options: {
      generator: new Generator(3, { engine }),
      out: drawn(77),
      ...(method === 'stepPred' ? { outMean: drawn(78) } : {}),
    },
  };
}

/** The same call, to be changed without a trace in the other. */
export const copied = (call: StepCall): StepCall => ({ ...call, options: { ...call.options } });

/** Puts a value where the call has that argument; noise stands in for the generator. */
export function put(call: StepCall, argument: string, value: unknown): void {
  if (argument === 'noise') delete call.options.generator;
  if (argument in call) (call as unknown as Record<string, unknown>)[argument] = value;
  else (call.options as Record<string, unknown>)[argument] = value;
}

type Results = { prevSample: Tensor; prevSampleMean?: Tensor };

const args = ({ modelOutput, timestep, sample, options }: StepCall) => ({
  pred: [modelOutput as Tensor, timestep as number, sample as Tensor, options] as const,
  correct: [modelOutput as Tensor, sample as Tensor, options] as const,
  add: [sample as Tensor, options?.noise, timestep as number, withoutNoise(options)] as const,
});

function withoutNoise(options: StepCall['options']) {
  if (options === null || typeof options !== 'object' || !('noise' in options)) return options;
  const { noise: _, ...rest } = options;
  return rest;
}

export function run(method: Method, call: StepCall): Results {
  const { pred, correct, add } = args(call);
  if (method === 'stepPred') return call.s.stepPred(...pred) as Results;
  if (method === 'stepCorrect') return call.s.stepCorrect(...correct) as Results;
  return { prevSample: call.s.addNoise(...add) };
}

export function runAsync(method: Method, call: StepCall): Promise<Results> {
  const { pred, correct, add } = args(call);
  if (method === 'stepPred') return call.s.stepPredAsync(...pred) as Promise<Results>;
  if (method === 'stepCorrect') return call.s.stepCorrectAsync(...correct) as Promise<Results>;
  return call.s.addNoiseAsync(...add).then((prevSample) => ({ prevSample }));
}

/** Everything that a failed call could have changed, in a form for toEqual. */
export async function traces({ s, modelOutput, sample, options }: StepCall): Promise<unknown[]> {
  const { generator, noise, out, outMean } = (options ?? {}) as Partial<StepCall['options']>;
  const memory = [];
  for (const value of [modelOutput, sample, noise, out, outMean]) {
    const onDevice = value instanceof Tensor && value.device !== 'cpu' && !value.disposed;
    memory.push(bytesAround(onDevice ? await value.getData() : dataOf(value)).toString('base64'));
  }
  const positions = [generator].flat().map((g) => (g instanceof Generator ? position(g) : ''));
  return [...memory, ...positions, s.timesteps, s.sigmas, s.discreteSigmas];
}
