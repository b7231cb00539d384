import { AbortError, ScoreSdeError } from '../errors';
import type { StepSize } from '../native';
import type { Kernel, KernelCall } from '../native/call';
import type { ModelInputs, ScoreModel } from '../models/model';
import { planRandn, type Generator } from '../random/generator';
import type { SchedulerConfig } from '../scheduler/config';
import type { Schedule } from '../scheduler/schedule';
import { planStepCorrect, planStepPred, type Plan } from '../scheduler/steps';
import { assertSameDims, batchShape, operand } from '../tensor/operand';
import { Tensor, type TensorLike } from '../tensor/tensor';

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
  sample: Tensor;
  /** Its mean before the step's noise was added, [B, ...] float32: the denoised result after the last step. */
  mean: Tensor;
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
  readonly signal?: AbortSignal;
  /** Nobody keeps the steps' tensors: each step may overwrite the last one's. */
  readonly inPlace?: boolean;
}

/** Elements up to which a kernel takes less than some 50 us, which is what the event loop may be held for. */
const syncElements = 2 ** 15;

function execute<K extends Kernel>(call: KernelCall<K>, elements: number) {
  return elements <= syncElements ? call.run() : call.runAsync();
}

/**
 * Predictor-corrector sampling (Song et al. 2021, algorithm 1), in the order of the reference's pipeline: the initial
 * noise is the generators' first draw; each step corrects `correctSteps` times, then predicts.
 * @throws ScoreSdeError ERR_ABORTED, ERR_MODEL, ERR_NON_FINITE (naming the step), and what the model throws
 */
export async function* predictorCorrector(run: Run): AsyncGenerator<SamplingStep, void, void> {
  const { schedule, config, model, inputs, dims, generators: generator, stepSize, signal } = run;
  const { sigmas } = schedule;
  const timesteps = schedule.timesteps!;
  const total = timesteps.length;
  let calls = 0;

  let sample: Tensor = Tensor.empty(dims);
  let mean: Tensor = Tensor.empty(dims);
  // Out of place, so that the corrector can keep its noise where its result will be.
  let spare: Tensor = Tensor.empty(dims);
  const shape = batchShape(operand(sample, 'sample'));
  assertGoesOn(signal);
  await execute(planRandn(generator, operand(sample, 'sample'), shape, config.sigmaMax), sample.size);

  const scoreAt = async (index: number): Promise<TensorLike> => {
    assertGoesOn(signal);
    const sigma = new Tensor('float32', new Float32Array(shape.rows).fill(sigmas[index]!), [shape.rows]);
    const score = await model(sample, sigma, inputs);
    calls++;
    assertGoesOn(signal);
    return checkedScore(score, dims);
  };
  /** Runs a kernel, whose result is the next sample. */
  const advance = async ({ call, result }: Advance, index: number, what: string): Promise<void> => {
    if (!(await execute(call, sample.size)))
      throw new ScoreSdeError(
        'ERR_NON_FINITE',
        `step ${index} of ${total} (sigma ${sigmas[index]}): the ${what} gave values that are not finite; ` +
          'the model returned NaN, infinity, or a score of zero',
      );
    spare = run.inPlace ? sample : Tensor.empty(dims);
    sample = result.prevSample;
  };

  for (let index = 0; index < total; index++) {
    const sigma = sigmas[index]!;
    for (let k = 0; k < config.correctSteps; k++) {
      const score = await scoreAt(index);
      const options = { generator, stepSize, sigma, out: spare };
      await advance(planStepCorrect(config.snr, score, sample, options), index, 'corrector');
    }
    const score = await scoreAt(index);
    if (!run.inPlace) mean = Tensor.empty(dims);
    const options = { generator, out: spare, outMean: mean };
    await advance(planStepPred(schedule, score, timesteps[index]!, sample, options), index, 'predictor');
    // A turn of the event loop: neither kernels on this thread nor the ends of those on others, which Node takes up to a
    // thousand at a time, keep it from the rest of the process.
    await new Promise(setImmediate);
    yield { index, total, timestep: timesteps[index]!, sigma, calls, sample: viewOf(sample), mean: viewOf(mean) };
  }
}

type Advance = Plan<'stepPred' | 'stepCorrect', { prevSample: Tensor }>;

function assertGoesOn(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError(signal);
}

/** ERR_MODEL unless the model returned a score for these states. */
function checkedScore(score: TensorLike, dims: readonly number[]): TensorLike {
  try {
    assertSameDims(operand(score, 'the score'), { name: 'the sample', dims });
    return score;
  } catch (cause) {
    throw new ScoreSdeError('ERR_MODEL', `the model's result does not fit: ${(cause as Error).message}`, { cause });
  }
}

/** For a reader who may dispose what it is given. */
export function viewOf(tensor: Tensor): Tensor {
  return new Tensor(tensor.type, tensor.data, tensor.dims);
}
