import { behind, type ModelContext, type ModelInputs, type Parameterization, type ScoreModel } from '../models/model';
import { plain } from '../models/network/kind';
import { checkedResult } from '../models/result';
import { assertGoesOn, Wait } from '../signals';
import { operand, type Operand } from '../tensor/operand';
import { Tensor } from '../tensor/tensor';
import { rowsOf } from '../tensor/views';
import type { Executor } from './executor/executor';
import { joinedInputs } from './inputs';
import type { Lane, Stages } from './lane';

/** The network of a batch: its calls, its further inputs, and the memory for its output. */
export class NetworkCall {
  /** What the network's output stands for; the score where it is undefined. */
  readonly parameterization: Parameterization | undefined;
  readonly #network: ScoreModel;
  readonly #executor: Executor;
  readonly #dims: readonly number[];
  readonly #signal: AbortSignal | undefined;
  readonly #wait: Wait;
  #score: Tensor<'float32'> | undefined;
  /** The rows of it that the model was given to write to. */
  #offered: Tensor<'float32'> | undefined;
  /** The inputs of the present lanes as the network prepared them. */
  #inputs: ModelInputs | undefined;
  /** Those of each lane, where several share the calls. */
  readonly #ofLane = new WeakMap<Lane, ModelInputs>();

  /** @param dims The pool's */
  constructor(model: ScoreModel, executor: Executor, dims: readonly number[], signal: AbortSignal | undefined) {
    const raw = model[behind];
    this.#network = raw?.network ?? model;
    this.parameterization = raw?.parameterization;
    this.#executor = executor;
    this.#dims = dims;
    this.#signal = signal;
    this.#wait = new Wait(signal);
  }

  /**
   * Prepares the inputs of lanes that are to share the next calls.
   * @param prepared The inputs of a lane that is alone, where the network prepared them before
   * @throws ScoreSdeError ERR_CONFIG (inputs that cannot share a call), and what the network's prepare throws
   */
  prepare(lanes: readonly Lane[], prepared?: ModelInputs): void {
    const inputs = lanes.length === 1 ? (prepared ?? lanes[0]!.inputs) : joinedInputs(lanes, (lane) => this.#own(lane));
    const rows = lanes.reduce((sum, lane) => sum + lane.rows, 0);
    this.#inputs = this.#prepared(rows, inputs);
  }

  /** By what the network wants x multiplied, at a level that it is told as a float32. */
  scale(sigma: number): number {
    return (this.parameterization ?? plain).scale(Math.fround(sigma));
  }

  /**
   * The network's output for the states of all lanes.
   * @throws AbortError as soon as the signal is aborted, and what the model throws; ERR_MODEL
   */
  async run(stages: Stages, rows: number, states: Tensor<'float32'>): Promise<Operand> {
    assertGoesOn(this.#signal);
    const network = this.parameterization ?? plain;
    const told = new Float32Array(rows);
    for (const [lane, stage] of stages)
      told.fill(network.label(Math.fround(stage.sigma)), lane.first, lane.first + lane.rows);
    const sample = rowsOf(states, 0, rows);
    const offer = (): Tensor<'float32'> => this.#offer(rows);
    const context: ModelContext = {
      signal: this.#signal,
      get out() {
        return offer();
      },
    };
    const sigma = new Tensor('float32', told, [rows]);
    const result = await this.#wait.for(this.#executor.call(this.#network, sample, sigma, this.#inputs!, context));
    assertGoesOn(this.#signal);
    return result !== undefined && result === this.#offered
      ? operand(result, 'the score')
      : checkedResult(result, sample.dims, sample);
  }

  /** Gives the memory back. Returns false where a call that was given up is still at work on the states and its output. */
  dispose(): boolean {
    this.#wait.end();
    if (this.#wait.isPending) return false;
    this.#score?.dispose();
    return true;
  }

  #offer(rows: number): Tensor<'float32'> {
    this.#score ??= Tensor.empty(this.#dims, { device: this.#executor.modelDevice(this.#network) });
    return (this.#offered = rowsOf(this.#score, 0, rows));
  }

  #own(lane: Lane): ModelInputs {
    let own = this.#ofLane.get(lane);
    if (own === undefined) this.#ofLane.set(lane, (own = this.#prepared(lane.rows, lane.inputs)));
    return own;
  }

  #prepared(rows: number, inputs: ModelInputs): ModelInputs {
    return this.#network.prepare?.([rows, ...this.#dims.slice(1)], inputs) ?? inputs;
  }
}
