import { AbortError, ScoreSdeError } from '../errors';
import type { ModelContext, ModelInputs, ScoreModel } from '../models/model';
import type { StepSize } from '../native/abi';
import { planRandn, type Generator } from '../random/generator';
import type { SchedulerConfig } from '../scheduler/config';
import type { Schedule } from '../scheduler/schedule';
import { planStepCorrect, planStepPred, type Plan } from '../scheduler/steps';
import { batchShape, operand } from '../tensor/operand';
import { sizeOfDims, Tensor, type TensorLike } from '../tensor/tensor';
import { checkedScore, Host, OnDevice, viewOf } from './place';

/** The state of a run after a step. Its tensors stay as they are when the run goes on. */
export interface SamplingStep {
  /** 0 to total - 1. */
  index: number;
  total: number;
  /** The time t of this step, from 1 down to samplingEps. */
  timestep: number;
  /** The noise level that the model was given. */
  sigma: number;
  /** Calls of the model so far. */
  calls: number;
  /** x after this step, [B, ...] float32. What is written to it, the run goes on with. */
  sample: Tensor<'float32'>;
  /** Its mean before the step's noise was added, [B, ...] float32: the denoised result after the last step. */
  mean: Tensor<'float32'>;
}

/** All that a run depends on: a snapshot, so that runs do not disturb one another. */
export interface Run {
  readonly schedule: Schedule;
  readonly config: SchedulerConfig;
  readonly model: ScoreModel;
  readonly inputs: ModelInputs;
  /** [B, ...] */
  readonly dims: readonly number[];
  readonly generators: readonly Generator[];
  readonly stepSize: StepSize;
  /** Where the states lie: 'cpu' or 'cuda:N'. */
  readonly device: string;
  readonly signal?: AbortSignal;
  /** Nobody keeps the steps' tensors: each step may overwrite the last one's, and the end disposes them. */
  readonly inPlace?: boolean;
}

/**
 * Predictor-corrector sampling (Song et al. 2021, algorithm 1), in the order of the reference's pipeline: the initial
 * noise is the generators' first draw; each step corrects `correctSteps` times, then predicts.
 * @throws ScoreSdeError ERR_ABORTED, ERR_MODEL, ERR_NON_FINITE (naming the step), and what the model throws
 */
export async function* predictorCorrector(run: Run): AsyncGenerator<SamplingStep, void, void> {
  const { schedule, config, model, inputs, dims, generators, stepSize, signal } = run;
  const { sigmas } = schedule;
  const timesteps = schedule.timesteps!;
  const total = timesteps.length;
  const perStep = config.correctSteps + 1; // calls of the model, and of kernels
  let calls = 0;

  const owned: Tensor<'float32'>[] = [];
  const own = () => {
    const tensor = Tensor.empty(dims, { device: run.device });
    if (run.inPlace) owned.push(tensor);
    return tensor;
  };

  const place =
    run.device === 'cpu'
      ? new Host(generators, sizeOfDims(dims, 'the batch'), run.inPlace ?? false)
      : new OnDevice(run.device, generators, dims);
  try {
    let sample = own();
    // Out of place, so that the corrector can keep its noise where its result will be.
    let spare: Tensor<'float32'> | undefined;
    let mean: Tensor<'float32'> | undefined;
    let score: Tensor<'float32'> | undefined;
    const context: ModelContext = {
      signal,
      get out() {
        if (score === undefined) owned.push((score = Tensor.empty(dims, { device: place.modelDevice(model) })));
        return score;
      },
    };
    const shape = batchShape(operand(sample, 'sample'));
    assertGoesOn(signal);
    await place.run(planRandn(generators, operand(sample, 'sample'), shape, config.sigmaMax), 0, []);

    const scoreAt = async (index: number): Promise<TensorLike> => {
      assertGoesOn(signal);
      const sigma = new Tensor('float32', new Float32Array(shape.rows).fill(sigmas[index]!), [shape.rows]);
      const score = await place.score(model, sample, sigma, inputs, context);
      calls++;
      assertGoesOn(signal);
      checkedScore(score, dims, sample);
      return score;
    };
    const assertFinite = (call: number | undefined): void => {
      if (call === undefined) return;
      const index = Math.floor(call / perStep);
      throw new ScoreSdeError(
        'ERR_NON_FINITE',
        `step ${index} of ${total} (sigma ${sigmas[index]}): the ${call % perStep < config.correctSteps ? 'corrector' : 'predictor'} ` +
          'gave values that are not finite; the model returned NaN, infinity, or a score of zero',
      );
    };
    /** Runs a kernel, whose result is the next sample. */
    const advance = async ({ call, result }: Advance, ...used: unknown[]): Promise<void> => {
      assertFinite(await place.run(call, calls - 1, used));
      spare = run.inPlace ? sample : undefined;
      sample = result.prevSample as Tensor<'float32'>; // which is its out
    };

    for (let index = 0; index < total; index++) {
      const sigma = sigmas[index]!;
      for (let k = 0; k < config.correctSteps; k++) {
        const draw = place.draw();
        const score = await scoreAt(index);
        const noise = await draw;
        const options = { ...noise, stepSize, sigma, out: (spare ??= own()) };
        const plan = planStepCorrect(config.snr, score, sample, options, place.mark(calls - 1));
        await advance(plan, noise.noise, place.passing(score));
      }
      const draw = place.draw();
      const score = await scoreAt(index);
      const noise = await draw;
      mean = run.inPlace ? (mean ?? own()) : own();
      const options = { ...noise, out: (spare ??= own()), outMean: mean };
      const plan = planStepPred(schedule, score, timesteps[index]!, sample, options, place.mark(calls - 1));
      await advance(plan, noise.noise, place.passing(score));
      assertFinite(await place.settle(index === total - 1));
      yield { index, total, timestep: timesteps[index]!, sigma, calls, sample: viewOf(sample), mean: viewOf(mean) };
    }
  } finally {
    await place.rest();
    for (const tensor of owned) tensor.dispose();
  }
}

type Advance = Plan<'stepPred' | 'stepCorrect', { prevSample: Tensor }>;

/** AbortError where the run's signal says so. */
export function assertGoesOn(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError(signal);
}
