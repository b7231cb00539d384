import { AbortError, ScoreSdeError } from '../errors';
import { show } from '../options';
import type { PerSample } from '../tensor/arguments';
import type { Tensor, TensorLike } from '../tensor/tensor';

/** What a run offers the model at each call. */
export interface ModelContext {
  /**
   * Memory for the score, [B, ...] float32, which the run reuses at each call. To be returned where it was written to;
   * a model that calls others hands it on to one of them at most, for one call.
   */
  readonly out?: Tensor<'float32'>;
  /** Ends the run: a model may give up its work with it. */
  readonly signal?: AbortSignal;
}

/** A further input of a network: a number for all samples, one per sample, or a tensor. */
export type ModelInput =
  PerSample | bigint | boolean | readonly (number | bigint | boolean)[] | BigInt64Array | TensorLike;

/** Further inputs of a network by name, e.g. { class_labels: [3, 1, 4] }. */
export type ModelInputs = Readonly<Record<string, ModelInput>>;

/** ERR_CONFIG unless a run's further inputs are an object of them by name. */
export function assertInputs(inputs: unknown, name: string): void {
  if (inputs === null || typeof inputs !== 'object' || Array.isArray(inputs))
    throw new ScoreSdeError('ERR_CONFIG', `${name} must be an object of inputs by name, got ${show(inputs)}`);
}

/** ERR_CONFIG unless a call's context is one; ERR_ABORTED where its signal has spoken. */
export function assertContext(context: unknown): void {
  if (context === null || typeof context !== 'object')
    throw new ScoreSdeError('ERR_CONFIG', `context must be an object with out and signal, got ${show(context)}`);
  const { signal } = context as ModelContext;
  if (signal !== undefined && typeof signal?.addEventListener !== 'function')
    throw new ScoreSdeError('ERR_CONFIG', `signal must be an AbortSignal, got ${show(signal)}`);
  if (signal?.aborted) throw new AbortError(signal);
}

/** A call that is under way. */
export interface Handed {
  /** Where the score will be. */
  readonly score: Tensor;
  readonly done: Promise<void>;
}

/**
 * The call of a model that keeps the order of its memory, as kernels do: what is enqueued on the score comes after it, so
 * that nobody need wait for its end to go on.
 */
export const handOver: unique symbol = Symbol('score-sde.handOver');

/** A score network: the gradient of log p_sigma at `sample`. Any async function is one. */
export interface ScoreModel {
  /**
   * @param sample The states, [B, ...] float32; not to be written to, nor kept: the run goes on in this memory
   * @param sigma The noise level of each sample, [B] float32
   * @param inputs What the run was given as modelInputs
   * @param context Memory for the result and the run's signal, for models that make use of them
   * @returns The score, with the dims of `sample`
   */
  (
    sample: Tensor<'float32'>,
    sigma: Tensor<'float32'>,
    inputs?: ModelInputs,
    context?: ModelContext,
  ): Promise<TensorLike> | TensorLike;
  /** Checks a run's inputs before its first call, for a sample of these dims; the calls get what it returns. ERR_MODEL, ERR_SHAPE. */
  prepare?(dims: readonly number[], inputs: ModelInputs): ModelInputs;
  /**
   * Where the model can take its states and leave its score: 'cpu' unless it says so. With 'cuda' (or 'cuda:1') a run on
   * such a device calls it with tensors there, and it returns one; whatever it enqueues must come after the work of the
   * tensors' stream, and before what that does next (see streamOf). `sigma` stays on the CPU.
   */
  readonly devices?: readonly string[];
  /** Gives back what the model holds. */
  dispose?(): Promise<void>;
  /** @internal */
  [handOver]?(sample: Tensor<'float32'>, sigma: Tensor<'float32'>, inputs: ModelInputs, context: ModelContext): Handed;
}
