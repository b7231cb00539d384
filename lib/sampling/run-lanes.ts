import { planRandn, type Generator } from '../random/generator';
import { batchShape, operand } from '../tensor/operand';
import { sizeOfDims, Tensor, type TensorLike } from '../tensor/tensor';
import { rowsOf, tensorOf } from '../tensor/views';
import type { Batch, LaneState } from './batch';
import { encode } from './checkpoint';
import { inputsOfRows } from './inputs';
import { Lane, partsOf, type NoiseSource, type Part } from './lane';
import type { RunPlan, SamplingProgress } from './plan';

/**
 * The lanes of a run in its batch: one for all samples; or several, each of which joins the batch when there is room, and
 * leaves it with its samples: one for each sample of an adaptive solver, or for each `maxRows`.
 */
export class RunLanes {
  readonly #parts: readonly Part[];
  readonly #lanes: Lane[];
  /** Lanes that have been in the batch. */
  #begun = 0;
  /** Of several lanes: the starts of those that wait, and the samples that are there. */
  #samples: Tensor<'float32'> | undefined;
  /** Steps that were told of. */
  #steps = 0;

  private constructor(
    private readonly plan: RunPlan,
    private readonly batch: Batch,
  ) {
    const { solver, levels, noise, inputs, dims, places } = plan;
    const all = dims[0]!;
    this.#parts = partsOf(all, plan.maxRows, solver);
    const isOne = this.#parts.length === 1;
    this.#lanes = this.#parts.map(
      ({ first, rows }, i) =>
        new Lane({
          ...{ solver, levels, rows, firstSample: first, place: places?.[i] },
          noise: isOne ? noise : noiseOfRows(noise, first, rows),
          inputs: isOne ? inputs : inputsOfRows(inputs, first, rows, all),
        }),
    );
    if (this.#isAdaptive) this.#steps = Math.max(0, ...this.#lanes.map(({ steps }) => steps));
  }

  /** Brings a run's lanes into a batch. */
  static async join(plan: RunPlan, batch: Batch): Promise<RunLanes> {
    const lanes = new RunLanes(plan, batch);
    if (lanes.#lanes.length > 1) await lanes.#drawStarts();
    await lanes.#admit();
    await lanes.collect();
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
    if (!this.#isAdaptive) {
      const lane = this.#lanes[this.#begun - 1]!;
      if (!lane.endedStep) return undefined;
      const before = (this.#begun - 1) * this.steps;
      return {
        step: before + lane.last!.step + 1,
        total: this.#lanes.length * this.steps,
        calls: this.#lanes.reduce((sum, { calls }) => sum + calls, 0),
        sigma: lane.began,
      };
    }
    const first = this.#lanes.find(({ steps }) => steps > this.#steps);
    if (first === undefined) return undefined;
    this.#steps = first.steps;
    return { step: first.steps, total: NaN, calls: this.calls, sigma: first.began };
  }

  /** Takes the samples that are there out of the batch, where others are to come, and lets those in that wait. */
  async collect(): Promise<void> {
    if (this.#samples === undefined) return;
    const leaving = [...this.#lanes.entries()].filter(([, lane]) => lane.done && lane.first >= 0);
    for (const [i, lane] of leaving) {
      const { first, rows } = this.#parts[i]!;
      await this.batch.copyTo(lane, rowsOf(this.#samples, first, rows));
    }
    await this.batch.leave(leaving.map(([, lane]) => lane));
    await this.#admit();
  }

  /** The samples, once all are there and the batch is settled. */
  async take(): Promise<Tensor<'float32'>> {
    return this.#samples ?? this.batch.take(this.#lanes[0]!);
  }

  /** The run as the bytes of a file; the batch is settled. */
  async snapshot(): Promise<Uint8Array> {
    const { solver, levels, dims, noise, seed, inputs, dataRange, maxRows } = this.plan;
    // A lane that waits has its start alone, and one that has left the batch its samples.
    const states = this.#lanes.map((lane, i) =>
      lane.first < 0 ? this.#outside(this.#parts[i]!) : this.batch.state(lane),
    );
    const whole = async (partOf: (state: LaneState) => TensorLike | undefined): Promise<Float32Array | undefined> => {
      const parts = states.map(partOf);
      if (parts.every((part) => part === undefined)) return undefined;
      const all = new Float32Array(sizeOfDims(dims, 'the batch'));
      const each = all.length / dims[0]!;
      for (const [i, part] of parts.entries())
        if (part) all.set((await (part as Tensor).getData()) as Float32Array, this.#parts[i]!.first * each);
      return all;
    };
    const histories = Math.max(...states.map(({ history }) => history.length));
    const history: Float32Array[] = [];
    for (let k = 0; k < histories; k++) history.push((await whole((state) => state.history[k]))!);
    return encode({
      ...{ solver, levels, dims, noise, seed, inputs, dataRange, maxRows },
      places: this.#lanes.map(({ place }, i) => (i < this.#begun ? place : { ...place, waits: true })),
      x: (await whole(({ x }) => x))!,
      history,
      base: await whole(({ base }) => base),
      low: await whole(({ low }) => low),
    });
  }

  get #isAdaptive(): boolean {
    return this.plan.solver.tolerance !== undefined;
  }

  /** The rows of a lane that is not in the batch. */
  #outside({ first, rows }: Part): LaneState {
    return { x: rowsOf(this.#samples!, first, rows), history: [] };
  }

  /** Draws the starts of all lanes, each from its own streams. */
  async #drawStarts(): Promise<void> {
    const { noise, levels, state, dims, device } = this.plan;
    this.#samples = Tensor.empty(dims, { device });
    const start = operand(this.#samples, 'sample');
    if (state !== undefined) return this.batch.copy(state.x, this.#samples);
    const { generators } = noise as { generators: readonly Generator[] };
    await planRandn(generators, start, batchShape(start), levels.start).runAsync();
  }

  /** Lets lanes into the batch, in their order, as long as there is room. */
  async #admit(): Promise<void> {
    const { batch } = this;
    const { state, prepared } = this.plan;
    for (; this.#begun < this.#lanes.length; this.#begun++) {
      const [lane, part] = [this.#lanes[this.#begun]!, this.#parts[this.#begun]!];
      if (this.#samples === undefined) {
        await batch.join(lane, state, prepared);
        continue;
      }
      if (lane.rows > batch.capacity - batch.rows) return;
      if (lane.done) continue; // of a run that was saved
      const rows = (given: TensorLike) => rowsOf(tensorOf(operand(given, 'sample')), part.first, part.rows);
      const kept = lane.isNew || state === undefined ? undefined : state;
      await batch.join(lane, {
        x: rows(this.#samples),
        history: kept?.history.map(rows) ?? [],
        base: kept?.base && rows(kept.base),
        low: kept?.low && rows(kept.low),
      });
    }
  }
}

/** The streams of some of a batch's samples. */
function noiseOfRows(noise: NoiseSource, first: number, rows: number): NoiseSource {
  if (!('generators' in noise) || noise.generators.length === 1) return noise;
  return { generators: noise.generators.slice(first, first + rows) };
}
