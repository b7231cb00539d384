import type { ModelContext, ModelInputs, ScoreModel } from '../../models/model';
import type { NonFinite } from '../../native/abi';
import type { Call } from '../../native/call';
import type { Tensor, TensorLike } from '../../tensor/tensor';

/** An update that was handed over: what a report of values that are not finite refers to. */
export interface Handed {
  /** Counts the updates of a batch. A device notes the number of the first update of a row that went wrong. */
  readonly index: number;
  /** Rows whose state is not finite after the update, where it is known. */
  readonly fail: (rows: ArrayLike<number>) => void;
}

/** How the work of a batch is done where its states lie. It knows calls, updates and memory, and no sampler. */
export interface Executor {
  readonly device: string;
  /** Where a model takes the states and leaves its result: this place, or the CPU. */
  modelDevice(model: ScoreModel): string;
  /** The model's result, in this place. It may be under way: what is enqueued on its memory comes after it. */
  call(
    model: ScoreModel,
    sample: Tensor<'float32'>,
    sigma: Tensor<'float32'>,
    inputs: ModelInputs,
    context: ModelContext,
  ): Promise<TensorLike>;
  /** What an update takes as its last arguments, so that the place can tell of values that are not finite. */
  mark(index: number): readonly unknown[];
  /** Runs an update of so many elements, or leaves it under way. `done` settles when it is over. */
  update(call: Call<NonFinite>, elements: number, handed: Handed): Promise<{ readonly done: Promise<void> }>;
  /** Other work on the batch's memory, in order. */
  work(call: Call<unknown>): Promise<void>;
  /** Called between two updates: waits where too much is under way. */
  pace(): Promise<void>;
  /** Waits until everything is over, and reports what is not finite. */
  settle(): Promise<void>;
  /** Called when rows are to be another lane's: what is reported from now on is theirs. */
  renew(): Promise<void>;
  /** Waits until nothing is under way, whatever became of it. Never throws. */
  end(): Promise<void>;
}
