import type { PerSample } from '../tensor/numbers';
import type { Tensor, TensorLike } from '../tensor/tensor';

/** A further input of a network: a number for all samples, one per sample, or a tensor. */
export type ModelInput =
  PerSample | bigint | boolean | readonly (number | bigint | boolean)[] | BigInt64Array | TensorLike;

/** Further inputs of a network by name, e.g. { class_labels: [3, 1, 4] }. */
export type ModelInputs = Readonly<Record<string, ModelInput>>;

/** A score network: the gradient of log p_sigma at `sample`. Any async function is one. */
export interface ScoreModel {
  /**
   * @param sample The states, [B, ...] float32; not to be written to
   * @param sigma The noise level of each sample, [B] float32
   * @param inputs What the run was given as modelInputs
   * @returns The score, with the dims of `sample`
   */
  (sample: Tensor, sigma: Tensor, inputs?: ModelInputs): Promise<TensorLike> | TensorLike;
  /** Checks a run's inputs before its first call, for a sample of these dims; the calls get what it returns. ERR_MODEL, ERR_SHAPE. */
  prepare?(dims: readonly number[], inputs: ModelInputs): ModelInputs;
  /** Gives back what the model holds. */
  dispose?(): Promise<void>;
}
