import { ScoreSdeError } from '../errors';
import type { Signal } from '../platform';
import type { ModelInputs, ScoreModel } from '../models/model';
import { Row, RowNormals } from '../native/abi';
import { assertGoesOn } from '../signals';
import type { Stage } from '../solvers/solver';
import { operand, type Operand } from '../tensor/operand';
import { Tensor, type TensorLike } from '../tensor/tensor';
import { rowsOf, tensorOf } from '../tensor/views';
import { ErrorControl } from './adaptive';
import { drawsOf, type Draws } from './draws';
import { CpuExecutor } from './executor/cpu';
import { CudaExecutor } from './executor/cuda';
import type { Executor } from './executor/executor';
import type { Lane, Stages } from './lane';
import { NetworkCall } from './network-call';
import { addOpening, drawStart } from './opening';
import { keepsRow, optional, planPass, recordsOf } from './passes';
import { Pool } from './pool';
import { writeRow } from './row';
import { planStep, recordsFor } from './step';

export interface BatchOptions {
  readonly model: ScoreModel;
  /** The dims of one sample. */
  readonly sampleShape: readonly number[];
  /** Rows of the pool. */
  readonly capacity: number;
  /** Where the states lie: 'cpu' or 'cuda:N'. */
  readonly device: string;
  /** Ends the batch: what it waits for of the model is given up. */
  readonly signal?: Signal | undefined;
}

/** What a lane holds between two stages, [rows, ...] each. */
export interface LaneState {
  readonly x: TensorLike;
  /** The values of the calls before, D1, D2, ...: the newest first. */
  readonly history: readonly TensorLike[];
  /** X0, x before the last update that marked it. */
  readonly base?: TensorLike | undefined;
  /** The result of lower order of the last accepted step, of adaptive solvers. */
  readonly low?: TensorLike | undefined;
}

/** What the last network call and its update left, for readers. */
interface Left {
  /** The states that the network was called with. */
  readonly x: Tensor<'float32'>;
  readonly output: Operand;
  readonly stages: Stages;
  /** The means of the update, where a stage ended a step. */
  readonly mean: Tensor<'float32'> | undefined;
  /** The first row of each lane. Lanes may have other rows since. */
  readonly firsts: ReadonlyMap<Lane, number>;
}

/**
 * The loop body. A batch holds lanes in adjacent rows of a pool: `advance` makes one network call over all of them, each
 * row at its own noise level, and one pass over memory with each row's own update. Lanes join and leave between two
 * advances. No bit of a lane depends on the others.
 *
 * The methods are not to be called before the one before has settled.
 */
export class Batch {
  /**
   * Whether the states after a stage are to stay as they are when the batch goes on: each update then writes to new
   * memory, the means before the noise too. Else updates work in place.
   */
  keeps = false;
  readonly capacity: number;
  readonly #signal: Signal | undefined;
  readonly #executor: Executor;
  readonly #pool: Pool;
  readonly #network: NetworkCall;
  readonly #control: ErrorControl;
  readonly #lanes: Lane[] = [];
  /** Lanes whose X0 and, of adaptive solvers, result of lower order were written. */
  readonly #marked = new WeakSet<Lane>();
  #rows = 0;
  #updates = 0;
  #given: Tensor<'float32'> | undefined;
  #scaled: Tensor<'float32'> | undefined;
  #left: Left | undefined;

  constructor({ model, sampleShape, capacity, device, signal }: BatchOptions) {
    this.#signal = signal;
    this.capacity = capacity;
    this.#executor = device === 'cpu' ? new CpuExecutor() : new CudaExecutor(device, capacity);
    this.#pool = new Pool(this.#executor, [capacity, ...sampleShape]);
    this.#network = new NetworkCall(model, this.#executor, this.#pool.dims, signal);
    this.#control = new ErrorControl(this.#pool, this.#executor, this.#network.parameterization);
  }

  /** The lanes, in the order of their rows. */
  get lanes(): readonly Lane[] {
    return this.#lanes;
  }

  /** Rows that are taken. */
  get rows(): number {
    return this.#rows;
  }

  /**
   * Takes a lane into the next free rows. It begins with `state`, or with the first draw of its streams.
   * @param prepared The lane's inputs as the model prepared them, where the lane is alone
   * @throws ScoreSdeError ERR_STATE where the pool is full, ERR_CONFIG where its inputs cannot share a network call with those
   *   of the others, and what its state or its source of noise throws; then the lane is not in the batch
   */
  async join(lane: Lane, state?: LaneState, prepared?: ModelInputs): Promise<void> {
    const pool = this.#pool;
    const free = this.capacity - this.#rows;
    if (lane.rows > free)
      throw new ScoreSdeError('ERR_STATE', `the pool has ${free} free rows, got a lane of ${lane.rows}`);
    if (state === undefined && 'sampler' in lane.noise)
      throw new ScoreSdeError('ERR_CONFIG', 'a noiseSampler needs sample, where the run begins');
    this.#network.prepare([...this.#lanes, lane], prepared);
    lane.first = this.#rows;
    this.#rows += lane.rows;
    this.#lanes.push(lane);
    try {
      await this.#executor.renew();
      await pool.unshare();
      await this.#fill(lane, state);
    } catch (error) {
      await this.leave([lane]);
      throw error;
    }
  }

  /** Gives the rows of lanes that leave to others: to the last lane, if that has as many, or else to those that come after. */
  async leave(leaving: readonly Lane[]): Promise<void> {
    const gone = new Set(leaving);
    const first = this.#lanes.findIndex((lane) => gone.has(lane));
    if (first < 0) return;
    if (this.#lanes.slice(first).some((lane) => !gone.has(lane))) {
      await this.#executor.renew();
      await this.#pool.unshare();
    }
    // From the end, so that none that is to leave is moved.
    for (let i = this.#lanes.length - 1; i >= first; i--) if (gone.has(this.#lanes[i]!)) await this.#remove(i);
    if (this.#lanes.length > 0) this.#network.prepare(this.#lanes);
  }

  async #remove(index: number): Promise<void> {
    const [lane, last] = [this.#lanes[index]!, this.#lanes.at(-1)!];
    const { first, rows } = lane;
    if (last !== lane && last.rows === rows) {
      await this.#pool.move(last.first, first, rows);
      this.#lanes[index] = last;
      this.#lanes.pop();
      last.first = first;
    } else {
      await this.#pool.close(first, rows, this.#rows);
      this.#lanes.splice(index, 1);
      for (const moved of this.#lanes.slice(index)) moved.first -= rows;
    }
    lane.first = -1;
    this.#rows -= rows;
  }

  /**
   * One network call over the rows of all lanes, and the update of each. Lanes whose rows are known not to be finite have
   * a `failure` afterwards; they are to leave. On the CPU, work may be under way until {@link settle}.
   * @throws what the model throws; ERR_MODEL, ERR_ABORTED
   * @returns what settles when the updates are over
   */
  async advance(): Promise<{ readonly done: Promise<void> }> {
    await this.#goBack();
    const stages: Stages = new Map(this.#lanes.map((lane) => [lane, lane.stage()]));
    const lasts = new Set(this.#lanes.filter((lane) => lane.isLast));
    const draws = this.#draws(stages, lasts);
    draws.catch(() => {}); // told where it is awaited, if the model does not fail first
    const output = await this.#network.run(stages, this.#rows, await this.#seen(stages));
    await this.#mark(stages);
    const measured = await this.#control.lower(stages, this.#rows, output);
    const done = await this.#update(stages, await draws, output, lasts.size < stages.size);
    let errors: Map<Lane, number> | undefined;
    if (measured !== undefined) {
      await this.settle();
      errors = await this.#control.errors(measured);
    }
    for (const [lane, stage] of stages) {
      if (lane.failure !== undefined) continue;
      lane.pass(stage, errors?.get(lane));
      if (errors?.has(lane) && lane.endedStep) await this.#control.accept(lane);
    }
    await this.#executor.pace();
    return done;
  }

  /** Waits until nothing is under way; then the states are what the lanes' places say. */
  settle(): Promise<void> {
    return this.#executor.settle();
  }

  /** x of a lane after its last stage, where it lies; with `keeps` it stays as it is, else until the next advance. */
  x(lane: Lane): Tensor<'float32'> {
    this.#pool.isShown ||= this.keeps;
    return rowsOf(this.#pool.x, lane.first, lane.rows);
  }

  /** The mean of a lane's last update before its noise, where it ended a step, with `keeps`. */
  mean(lane: Lane): Tensor<'float32'> {
    const { mean, firsts } = this.#left!;
    return rowsOf(mean!, firsts.get(lane)!, lane.rows);
  }

  /** What a lane holds beside its place, where it lies, until the next advance. Of a lane that is done x is the sample. */
  state(lane: Lane): LaneState & { x: Tensor; history: Tensor[]; base: Tensor | undefined; low: Tensor | undefined } {
    const { x, history, base, low } = this.#pool;
    const rows = (tensor: Tensor<'float32'>) => rowsOf(tensor, lane.first, lane.rows);
    const isMarked = this.#marked.has(lane);
    return {
      x: lane.done ? this.#sample(lane) : rows(x),
      // As many as were written.
      history: lane.done ? [] : history.slice(0, Math.min(lane.calls, lane.solver.history)).map(rows),
      base: isMarked && base ? rows(base) : undefined,
      low: isMarked && low && lane.solver.tolerance ? rows(low.accepted) : undefined,
    };
  }

  /** D = x + sigma^2 score of a lane's last network call. With `keeps`, and before the batch goes on. */
  denoised(lane: Lane): Tensor<'float32'> {
    const { x, output, stages, firsts } = this.#left!;
    const first = firsts.get(lane)!;
    const estimate: Stage = { ...stages.get(lane)!, update: { kind: 'linear', a: 0, b: [1], e: 0 } };
    const from = rowsOf(x, first, lane.rows);
    const result = Tensor.empty(from.dims, { device: this.#executor.device });
    const m = operand(rowsOf(tensorOf(output), first, lane.rows), 'the score');
    const [rows, { cols }, out] = [lane.rows, this.#pool, operand(result, 'denoised')];
    const records = () => this.#one(estimate, RowNormals.none);
    planStep({ rows, cols, records, x: operand(from, 'x'), output: m, out }).run();
    return result;
  }

  /** The sample of a lane that is done, as a tensor of its own: the batch's memory itself where the lane has all of it, and then leaves. */
  async take(lane: Lane): Promise<Tensor<'float32'>> {
    const sample = this.#sample(lane);
    if (sample === this.#left?.mean) return sample;
    if (lane.rows === this.capacity && !this.#pool.isShown) {
      await this.leave([lane]);
      return this.#pool.release();
    }
    const own = Tensor.empty(sample.dims, { device: this.#executor.device });
    await this.#pool.copy(sample, own, 'sample');
    await this.settle();
    return own;
  }

  /** Copies a tensor of any state type, from wherever it lies. */
  copy(from: TensorLike, to: Tensor<'float32'>): Promise<void> {
    return this.#pool.copy(from, to, 'sample');
  }

  /** Copies the sample of a lane that is done. */
  copyTo(lane: Lane, to: Tensor<'float32'>): Promise<void> {
    return this.#pool.copy(this.#sample(lane), to, 'sample');
  }

  /** Waits for the kernels and gives the memory back. A call of the model that was given up keeps what it works on. */
  async dispose(): Promise<void> {
    await this.#executor.end();
    if (this.#network.dispose()) this.#pool.dispose();
  }

  /** Brings a lane's state to its rows. */
  async #fill(lane: Lane, state: LaneState | undefined): Promise<void> {
    const pool = this.#pool;
    while (pool.history.length < lane.solver.history) pool.history.push(pool.own());
    const rows = (tensor: Tensor<'float32'>) => rowsOf(tensor, lane.first, lane.rows);
    if (state === undefined) await drawStart(lane, pool, this.#executor);
    else await pool.copy(state.x, rows(pool.x), 'sample');
    assertGoesOn(this.#signal); // the streams may be another run's by now
    if (lane.isNew) await addOpening(lane, pool, this.#executor);
    for (const [i, kept] of state?.history.entries() ?? []) await pool.copy(kept, rows(pool.history[i]!), 'history');
    if (state?.base) {
      await pool.copy(state.base, rows((pool.base ??= pool.own())), 'base');
      this.#marked.add(lane);
    }
    if (state?.low) await this.#control.restore(lane, state.low);
  }

  /** The last update's result without its noise, but for a corrector's noise, which is a part of it. */
  #sample(lane: Lane): Tensor<'float32'> {
    const hasNoise = this.#left?.firsts.has(lane) && lane.last?.update.kind !== 'langevin';
    return hasNoise ? this.mean(lane) : rowsOf(this.#pool.x, lane.first, lane.rows);
  }

  #draws(stages: Stages, lasts: ReadonlySet<Lane>): Promise<Draws> {
    const asked = [...stages].map(([lane, stage]) => ({
      lane,
      stage,
      // The noise of a predictor's last update is left out of the sample, so that nobody sees it but a reader of steps.
      isUsed: addsNoise(stage) && (this.keeps || stage.update.kind === 'langevin' || !lasts.has(lane)),
    }));
    return drawsOf(asked, {
      rows: this.#rows,
      cols: this.#pool.cols,
      device: this.#executor.device,
      given: () => (this.#given ??= this.#pool.own()),
      scratch: () => this.#pool.spare,
      run: (call) => this.#executor.work(call),
      write: (from, to, name) => this.#pool.copy(from, to, name),
    });
  }

  /** What the network sees of x. */
  async #seen(stages: Stages): Promise<Tensor<'float32'>> {
    const { x } = this.#pool;
    const scale = (stage: Stage) => this.#network.scale(stage.sigma);
    if ([...stages.values()].every((stage) => scale(stage) === 1)) return x;
    const scaled = (this.#scaled ??= this.#pool.own());
    const records = () =>
      recordsOf(stages, this.#rows, (record, stage) => {
        keepsRow(record);
        record[Row.a] = scale(stage);
      });
    await this.#executor.work(
      planPass(this.#pool, { rows: this.#rows, records, from: x, to: scaled, output: undefined }),
    );
    return scaled;
  }

  /** The record of all rows of a lane that is alone. */
  #one(stage: Stage, normals: RowNormals): Float32Array {
    const record = recordsFor(1);
    writeRow(record, stage, { parameterization: this.#network.parameterization, normals, group: 0 });
    return record;
  }

  /** Hands over the update of all rows. */
  async #update(stages: Stages, draws: Draws, output: Operand, goesOn: boolean): Promise<{ done: Promise<void> }> {
    // Draws are taken from here on: a run that was ended must not take any from streams that others have by now.
    assertGoesOn(this.#signal);
    const [rows, pool, index] = [this.#rows, this.#pool, this.#updates++];
    const { x, history } = pool;
    const all = [...stages.values()];
    // A corrector keeps its noise in `out` until its norm is known, so that it need not be drawn twice.
    const isApart = all.some(({ update }) => update.kind !== 'linear');
    const out = pool.target(this.keeps ? 'new' : isApart ? 'apart' : 'in place');
    const isMeant = this.keeps && all.some(({ endsStep }) => endsStep);
    const mean = isMeant ? Tensor.empty(pool.dims, { device: this.#executor.device }) : undefined;
    // What is pushed takes the place of the oldest value, which each element has been read from by then.
    const oldest = goesOn ? history.at(-1) : undefined;
    const groups = new Map(this.#lanes.map((lane, group) => [lane, group]));
    const { parameterization } = this.#network;
    const records = () =>
      all.length === 1
        ? this.#one(all[0]!, draws.normals[0]!)
        : recordsOf(stages, rows, (record, stage, lane, row) => {
            const group = groups.get(lane)!;
            writeRow(record, stage, { parameterization, normals: draws.normals[group]!, group });
            record[Row.phase] = draws.phases[row] ?? 0;
          });
    const call = planPass(pool, {
      rows,
      records,
      from: x,
      to: out,
      output,
      draws,
      mean: optional(mean, 'mean'),
      pushed: optional(oldest, 'history'),
      mark: this.#executor.mark(index),
    });
    const places = [...stages].map(([lane, stage]) => ({ lane, stage, first: lane.first }));
    const fail = (bad: ArrayLike<number>): void => {
      for (const row of Array.from(bad)) {
        const { lane, stage, first } = places.find((place) => row < place.first + place.lane.rows)!;
        lane.fail(row - first, stage, index);
      }
    };
    const update = await this.#executor.update(call, rows * pool.cols, { index, fail });
    const firsts = new Map(places.map(({ lane, first }) => [lane, first]));
    this.#left = this.keeps ? { x, output, stages, mean, firsts } : undefined;
    pool.moveTo(out);
    if (oldest !== undefined) history.unshift(history.pop()!);
    return update;
  }

  /** Keeps x as X0 where an update says so. */
  async #mark(stages: Stages): Promise<void> {
    for (const [lane, { update, step }] of stages) {
      if (update.kind !== 'linear' || !update.marks) continue;
      const pool = this.#pool;
      const rows = (tensor: Tensor<'float32'>) => rowsOf(tensor, lane.first, lane.rows);
      await pool.copy(rows(pool.x), rows((pool.base ??= pool.own())), 'x');
      if (lane.solver.tolerance && step === 0) await this.#control.begin(lane);
      this.#marked.add(lane);
    }
  }

  /** The updates without a network call that lanes have to make first. */
  async #goBack(): Promise<void> {
    for (;;) {
      const stages: Stages = new Map(this.#lanes.map((lane) => [lane, lane.stage()]));
      const silent = [...stages].filter(([{ failure }, { calls }]) => calls === false && failure === undefined);
      if (silent.length === 0) return;
      const [rows, pool] = [this.#rows, this.#pool];
      const records = () =>
        recordsOf(stages, rows, (record, stage) => {
          if (stage.calls !== false) return keepsRow(record);
          writeRow(record, stage, { parameterization: undefined, normals: RowNormals.none, group: 0 });
        });
      const to = pool.target('in place');
      // There is no output of a network: b[0], which would multiply it, is 0, and x stands in its place.
      const output = operand(pool.x, 'x');
      await this.#executor.work(planPass(pool, { rows, records, from: pool.x, to, output }));
      pool.moveTo(to);
      for (const [lane, stage] of silent) lane.pass(stage);
    }
  }
}

const addsNoise = ({ update }: Stage): boolean => update.kind !== 'linear' || update.e !== 0;
