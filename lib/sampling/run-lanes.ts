import { planRandn, type Generator } from '../random/generator';
import { batchShape, operand } from '../tensor/operand';
import { sizeOfDims, Tensor, type TensorLike } from '../tensor/tensor';
import { rowsOf, tensorOf } from '../tensor/views';
import type { Batch } from './batch';
import { encode } from './checkpoint';
import { inputsOfRow } from './inputs';
import { Lane } from './lane';
import type { RunPlan, SamplingProgress } from './plan';

/** The lanes of a run in its batch: one for all samples or, with an adaptive solver, which takes each sample its own way, one for each. */
export class RunLanes {
  readonly #lanes: Lane[] = [];
  /** Of an adaptive solver: the samples that are there. */
  #samples: Tensor<'float32'> | undefined;
  #steps: number;

  private constructor(
    private readonly plan: RunPlan,
    private readonly batch: Batch,
  ) {
    this.#steps = Math.max(0, ...(plan.places ?? []).map(({ steps }) => steps));
  }

  /** Brings a run's lanes into a batch. */
  static async join(plan: RunPlan, batch: Batch): Promise<RunLanes> {
    const lanes = new RunLanes(plan, batch);
    await (lanes.#isAdaptive ? lanes.#joinEach() : lanes.#joinOne());
    return lanes;
  }

  /** Whether all samples are there. */
  get done(): boolean {
    return this.#lanes.every(({ done }) => done);
  }

  get failure(): Error | undefined {
    return this.#lanes.find(({ failure }) => failure !== undefined)?.failure;
  }

  /** The one lane; undefined where the samples have no steps in common. */
  get only(): Lane | undefined {
    return this.#lanes.length === 1 ? this.#lanes[0] : undefined;
  }

  /** The most network calls that were made for a sample. */
  get calls(): number {
    return Math.max(...this.#lanes.map(({ calls }) => calls));
  }

  /** Steps of the run; with an adaptive solver, the most that a sample took. */
  get steps(): number {
    return this.#isAdaptive ? Math.max(...this.#lanes.map(({ steps }) => steps)) : this.plan.levels.sigma.length;
  }

  /** How far the run is, where the last stage ended a step. With an adaptive solver, that of the sample with the most steps. */
  progress(): SamplingProgress | undefined {
    const { calls } = this;
    if (!this.#isAdaptive) {
      const lane = this.#lanes[0]!;
      if (!lane.endedStep) return undefined;
      return { step: lane.last!.step + 1, total: this.steps, calls, sigma: Math.fround(lane.began) };
    }
    const first = this.#lanes.find(({ steps }) => steps > this.#steps);
    if (first === undefined) return undefined;
    this.#steps = first.steps;
    return { step: first.steps, total: NaN, calls, sigma: Math.fround(first.began) };
  }

  /** Takes the samples that are there out of the batch, where each sample has its own lane. */
  async collect(): Promise<void> {
    if (!this.#isAdaptive) return;
    for (const [row, lane] of this.#lanes.entries()) {
      if (!lane.done || lane.first < 0) continue;
      await this.batch.copyTo(lane, rowsOf(this.#samples!, row, 1));
      await this.batch.leave(lane);
    }
  }

  /** The samples, once all are there and the batch is settled. */
  async take(): Promise<Tensor<'float32'>> {
    return this.#samples ?? this.batch.take(this.#lanes[0]!);
  }

  /** The run as the bytes of a file; the batch is settled. */
  async snapshot(): Promise<Uint8Array> {
    const { solver, levels, dims, noise, seed, inputs, dataRange } = this.plan;
    // A lane that has left the batch holds its sample alone.
    const states = this.#lanes.map((lane, row) =>
      lane.first < 0
        ? { x: rowsOf(this.#samples!, row, 1), history: [], base: undefined, low: undefined }
        : this.batch.state(lane),
    );
    const whole = async (parts: readonly (Tensor | undefined)[]): Promise<Float32Array | undefined> => {
      if (parts.every((part) => part === undefined)) return undefined;
      const all = new Float32Array(sizeOfDims(dims, 'the batch'));
      const each = all.length / parts.length;
      for (const [i, part] of parts.entries()) if (part) all.set((await part.getData()) as Float32Array, i * each);
      return all;
    };
    const histories = Math.max(...states.map(({ history }) => history.length));
    const history: Float32Array[] = [];
    for (let k = 0; k < histories; k++) history.push((await whole(states.map((state) => state.history[k])))!);
    return encode({
      solver,
      levels,
      dims,
      noise,
      seed,
      inputs,
      dataRange,
      places: this.#lanes.map(({ place }) => place),
      x: (await whole(states.map(({ x }) => x)))!,
      history,
      base: await whole(states.map(({ base }) => base)),
      low: await whole(states.map(({ low }) => low)),
    });
  }

  get #isAdaptive(): boolean {
    return this.plan.solver.tolerance !== undefined;
  }

  async #joinOne(): Promise<void> {
    const { solver, levels, noise, inputs, prepared, state, dims, places } = this.plan;
    const lane = new Lane({ solver, levels, rows: dims[0]!, noise, inputs, place: places?.[0] });
    this.#lanes.push(lane);
    await this.batch.join(lane, state, prepared);
  }

  async #joinEach(): Promise<void> {
    const { solver, levels, noise, inputs, state, dims, places, device } = this.plan;
    const rows = dims[0]!;
    this.#samples = Tensor.empty(dims, { device });
    if (state === undefined) {
      const start = operand(this.#samples, 'sample');
      const { generators } = noise as { generators: readonly Generator[] };
      await planRandn(generators, start, batchShape(start), levels.start).runAsync();
    }
    const { x, history, base, low } = state ?? { x: this.#samples, history: [] };
    for (let row = 0; row < rows; row++) {
      const own = { solver, levels, rows: 1, noise, inputs: inputsOfRow(inputs, row, rows), firstSample: row };
      const lane = new Lane({ ...own, place: places?.[row] });
      this.#lanes.push(lane);
      const part = (given: TensorLike) => rowsOf(tensorOf(operand(given, 'sample')), row, 1);
      const kept = { x: part(x), history: history.map(part), base: base && part(base), low: low && part(low) };
      await this.batch.join(lane, kept);
    }
    await this.collect();
  }
}
