import { ScoreSdeError } from '../errors';
import type { Tensor } from '../tensor/tensor';

/** The state of a run after a step. Its tensors stay as they are when the run goes on. */
export class SamplingStep {
  /** 0 to total - 1. */
  readonly index: number;
  /** Steps in all; NaN where the solver decides on them as it goes. */
  readonly total: number;
  /** The time t of this step, from 1 down to samplingEps. */
  readonly timestep: number;
  /** The noise level that the step began at. */
  readonly sigma: number;
  /** Network calls so far. */
  readonly calls: number;
  /** x after this step, [B, ...] float32. What is written to it, the run goes on with. */
  readonly sample: Tensor<'float32'>;
  /** Its mean before the step's noise was added, [B, ...] float32: the denoised result after the last step. */
  readonly mean: Tensor<'float32'>;
  #denoised: Tensor<'float32'> | undefined;
  #denoise: (() => Tensor<'float32'>) | undefined;

  /** @internal */
  constructor(
    made: Pick<SamplingStep, 'index' | 'total' | 'timestep' | 'sigma' | 'calls' | 'sample' | 'mean'>,
    denoise: () => Tensor<'float32'>,
  ) {
    this.index = made.index;
    this.total = made.total;
    this.timestep = made.timestep;
    this.sigma = made.sigma;
    this.calls = made.calls;
    this.sample = made.sample;
    this.mean = made.mean;
    this.#denoise = denoise;
  }

  /**
   * The denoised estimate D = x + sigma^2 score of the step's last network call, [B, ...] float32 in new memory: what the
   * sample looks like by then. It is made when it is first read.
   * @throws ScoreSdeError ERR_STATE where it is first read after the run has gone on
   */
  get denoised(): Tensor<'float32'> {
    if (this.#denoised === undefined && this.#denoise === undefined)
      throw new ScoreSdeError('ERR_STATE', 'denoised must be read before the run goes on');
    return (this.#denoised ??= this.#denoise!());
  }

  /** @internal The run goes on. */
  pass(): void {
    this.#denoise = undefined;
  }
}
