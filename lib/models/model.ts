import { AbortError, ScoreSdeError } from '../errors';
import type { Signal } from '../platform';
import { assertSignal, show } from '../options';
import type { PerSample } from '../tensor/arguments';
import type { Tensor, TensorLike } from '../tensor/tensor';

/** What a run passes to the model at each call. */
export interface ModelContext {
  /**
   * Memory for the score, [B, ...] float32, which the run reuses at each call. A model that writes its score there returns this
   * tensor. A model that calls other models may pass it to one of their calls.
   */
  readonly out?: Tensor<'float32'> | undefined;
  /** Aborts the run. A model may stop its work then. */
  readonly signal?: Signal | undefined;
}

/**
 * A further input of a network: a number for all samples, one for each, or a tensor. An array as long as the batch, and a tensor
 * whose first size is the batch, have a row for each sample: a call with some of the samples gets their rows alone. A matrix for
 * all samples that may have as many rows needs an axis before them, [1, 4, 8] in place of [4, 8].
 */
export type ModelInput =
  PerSample | bigint | boolean | readonly (number | bigint | boolean)[] | BigInt64Array | TensorLike;

/** Further inputs of a network by name, e.g. { class_labels: [3, 1, 4] }. */
export type ModelInputs = Readonly<Record<string, ModelInput>>;

/** ERR_CONFIG unless `inputs` is an object. */
export function assertInputs(inputs: unknown, name: string): void {
  if (inputs === null || typeof inputs !== 'object' || Array.isArray(inputs))
    throw new ScoreSdeError('ERR_CONFIG', `${name} must be an object of inputs by name, got ${show(inputs)}`);
}

/** ERR_CONFIG unless `context` is a ModelContext, ERR_ABORTED where its signal is aborted. */
export function assertContext(context: unknown): void {
  if (context === null || typeof context !== 'object')
    throw new ScoreSdeError('ERR_CONFIG', `context must be an object with out and signal, got ${show(context)}`);
  const { signal } = context as ModelContext;
  assertSignal(signal);
  if (signal?.aborted) throw new AbortError(signal);
}

/** A call that has been queued. */
export interface Handed {
  /** Where the score will be once `done` resolves. */
  readonly score: Tensor;
  readonly done: Promise<void>;
}

/**
 * A method of models whose calls are ordered by their memory, as kernels are. A kernel that reads the score can be queued at
 * once: it begins after the call.
 */
export const handOver: unique symbol = Symbol('score-sde.handOver');

/** What a network takes and gives where it is no score: all of it is coefficients by the noise level. */
export interface Parameterization {
  /** The denoised estimate: D = skip x + out m, m being the network's output. */
  readonly denoised: (sigma: number) => { readonly skip: number; readonly out: number };
  /** By what x is multiplied before the network sees it. */
  readonly scale: (sigma: number) => number;
  /** What the network is told in place of sigma. */
  readonly label: (sigma: number) => number;
}

/** The network behind a model that turns its output into a score: the loop calls the network, and converts within its updates. */
export interface Behind {
  readonly network: ScoreModel;
  readonly parameterization: Parameterization;
}

/** A range of data that was given. ERR_RANGE. */
export function dataRangeOf(range: unknown, name = 'dataRange'): readonly [low: number, high: number] | undefined {
  if (range === undefined) return undefined;
  const [low, high] = Array.isArray(range) ? (range as number[]) : [];
  if (!Array.isArray(range) || range.length !== 2 || !(Number.isFinite(low) && Number.isFinite(high) && low! < high!))
    throw new ScoreSdeError(
      'ERR_RANGE',
      `${name} must be [low, high] of finite numbers, low < high, got ${show(range)}`,
    );
  return [low!, high!];
}

export const behind: unique symbol = Symbol('score-sde.behind');

/** A score network: the gradient of log p_sigma at `sample`. Any async function is one. */
export interface ScoreModel {
  /**
   * @param sample The states, [B, ...] float32. The model must not write them, and must copy what it keeps: the run reuses the memory
   * @param sigma The noise level of each sample, [B] float32
   * @param inputs The run's modelInputs, or what `prepare` returned for them
   * @param context Memory for the score, and the run's signal; a model may ignore both
   * @returns The score, with the dims of `sample`
   */
  (
    sample: Tensor<'float32'>,
    sigma: Tensor<'float32'>,
    inputs?: ModelInputs,
    context?: ModelContext,
  ): Promise<TensorLike> | TensorLike;
  /**
   * Checks a run's modelInputs before its first call. The calls get what it returns.
   * @param dims The dims of the states, [B, ...]
   */
  prepare?(dims: readonly number[], inputs: ModelInputs): ModelInputs;
  /**
   * The devices whose tensors the model takes. Default ['cpu']. With 'cuda' (or 'cuda:N') a run on such a device passes states
   * there and expects the score there; `sigma` stays on the CPU. The model must order its work after the present work of the
   * tensors' stream, and that stream's later work after its own (see streamOf, waitForStream, signalStream).
   */
  readonly devices?: readonly string[] | undefined;
  /** The values of the data that the model was trained on; [0, 1] unless it says so. A run's images map them to [0, 1]. */
  readonly dataRange?: readonly [low: number, high: number] | undefined;
  /** Frees what the model holds. */
  dispose?(): Promise<void>;
  /** @internal */
  readonly [behind]?: Behind | undefined;
  /** @internal */
  [handOver]?(sample: Tensor<'float32'>, sigma: Tensor<'float32'>, inputs: ModelInputs, context: ModelContext): Handed;
}
