import { ScoreSdeError } from '../errors';
import { behind, type ModelContext, type ModelInputs, type Parameterization, type ScoreModel } from '../models/model';
import { Row, RowKind, RowNormals } from '../native/abi';
import { planRandn } from '../random/generator';
import type { LinearUpdate, Stage } from '../solvers/solver';
import { batchShape, operand, stateTypeOf, type Operand } from '../tensor/operand';
import { sizeOfDims, Tensor, type TensorLike } from '../tensor/tensor';
import { rowsOf } from '../tensor/views';
import { drawsOf, type Draws } from './draws';
import { rowErrors } from './error';
import { CpuExecutor } from './executor/cpu';
import { CudaExecutor } from './executor/cuda';
import type { Executor } from './executor/executor';
import { checkedResult } from './executor/result';
import { joinedInputs } from './inputs';
import { assertGoesOn, type Lane } from './lane';
import { Pool } from './pool';
import { writeRow } from './row';
import { planStep, recordOf, recordsFor } from './step';

export interface BatchOptions {
  readonly model: ScoreModel;
  /** The dims of one sample. */
  readonly sampleShape: readonly number[];
  /** Rows of the pool. */
  readonly capacity: number;
  /** Where the states lie: 'cpu' or 'cuda:N'. */
  readonly device: string;
  /** Ends the model's calls. */
  readonly signal?: AbortSignal;
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

type Stages = ReadonlyMap<Lane, Stage>;

/** What a network call left, until the next: enough for the denoised estimates. */
interface LastCall {
  readonly x: Tensor<'float32'>;
  readonly output: Operand;
  readonly stages: Stages;
}

/**
 * The loop body. A batch holds lanes in adjacent rows of a pool: `advance` makes one network call over all of them, each
 * row at its own noise level, and one pass over memory with each row's own update. Lanes join and leave between two
 * advances. No bit of a lane depends on the others.
 */
export class Batch {
  /**
   * Whether the states after a stage are to stay as they are when the batch goes on: each update then writes to new
   * memory, the means before the noise too. Else updates work in place.
   */
  keeps = false;
  readonly capacity: number;
  readonly #network: ScoreModel;
  readonly #parameterization: Parameterization | undefined;
  readonly #shape: readonly number[];
  readonly #cols: number;
  readonly #signal: AbortSignal | undefined;
  readonly #executor: Executor;
  readonly #pool: Pool;
  readonly #lanes: Lane[] = [];
  #rows = 0;
  #updates = 0;
  #mean: Tensor<'float32'> | undefined;
  #given: Tensor<'float32'> | undefined;
  #scaled: Tensor<'float32'> | undefined;
  #score: Tensor<'float32'> | undefined;
  /** The rows of it that the model was given to write to. */
  #offered: Tensor<'float32'> | undefined;
  #inputs: ModelInputs | undefined;
  #last: LastCall | undefined;

  constructor({ model, sampleShape, capacity, device, signal }: BatchOptions) {
    const raw = model[behind];
    this.#network = raw?.network ?? model;
    this.#parameterization = raw?.parameterization;
    this.#shape = sampleShape;
    this.#cols = sizeOfDims(sampleShape, 'sampleShape');
    this.#signal = signal;
    this.capacity = capacity;
    this.#executor = device === 'cpu' ? new CpuExecutor() : new CudaExecutor(device, capacity);
    this.#pool = new Pool(this.#executor, [capacity, ...sampleShape]);
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
   * Takes a lane into the next free rows. It begins with `state`, or with the first draw of its streams. ERR_STATE where
   * the pool is full.
   * @param inputs The lane's inputs as the model prepared them, where the lane is alone
   */
  async join(lane: Lane, state?: LaneState, inputs?: ModelInputs): Promise<void> {
    if (this.#rows + lane.rows > this.capacity)
      throw new ScoreSdeError(
        'ERR_STATE',
        `the pool has ${this.capacity - this.#rows} free rows, got a lane of ${lane.rows}`,
      );
    lane.first = this.#rows;
    this.#rows += lane.rows;
    this.#lanes.push(lane);
    this.#inputs = this.#lanes.length === 1 ? inputs : undefined;
    const pool = this.#pool;
    while (pool.history.length < lane.solver.history) pool.history.push(pool.own());
    await this.#executor.renew();
    await pool.unshare();
    const rows = (tensor: Tensor<'float32'>) => rowsOf(tensor, lane.first, lane.rows);
    if (state === undefined) return this.#begin(lane, rows(pool.x));
    await pool.copy(state.x, rows(pool.x), 'sample');
    for (const [i, kept] of state.history.entries()) await pool.copy(kept, rows(pool.history[i]!), 'history');
    if (state.base) await pool.copy(state.base, rows((pool.base ??= pool.own())), 'base');
    if (state.low) await pool.copy(state.low, rows(this.#low().accepted), 'low');
  }

  /** Gives a lane's rows to those that come after it. */
  async leave(lane: Lane): Promise<void> {
    const index = this.#lanes.indexOf(lane);
    if (index < 0) return;
    this.#lanes.splice(index, 1);
    this.#inputs = undefined;
    const { first, rows } = lane;
    lane.first = -1;
    if (index < this.#lanes.length) {
      await this.#executor.renew();
      await this.#pool.unshare();
      await this.#pool.close(first, rows, this.#rows);
    }
    this.#rows -= rows;
    for (const moved of this.#lanes.slice(index)) moved.first -= rows;
  }

  /**
   * One network call over the rows of all lanes, and the update of each. Lanes whose rows are known not to be finite have
   * a `failure` afterwards. On the CPU, work may be under way until {@link settle}.
   * @throws what the model throws; ERR_MODEL, ERR_ABORTED
   * @returns what settles when the updates are over
   */
  async advance(): Promise<{ readonly done: Promise<void> }> {
    await this.#goBack();
    const stages = new Map(this.#lanes.map((lane) => [lane, lane.stage()]));
    const lasts = new Set(this.#lanes.filter((lane) => lane.isLast));
    const asked = [...stages].map(([lane, stage]) => ({
      lane,
      stage,
      // Nobody sees the last noise of a predictor: the sample is its mean.
      isUsed: addsNoise(stage) && (this.keeps || stage.update.kind === 'langevin' || !lasts.has(lane)),
    }));
    const draws = drawsOf(asked, {
      rows: this.#rows,
      cols: this.#cols,
      device: this.#executor.device,
      given: () => (this.#given ??= this.#pool.own()),
      scratch: () => this.#pool.spare,
      run: (call) => this.#executor.work(call),
      write: (from, to, name) => this.#pool.copy(from, to, name),
    });
    draws.catch(() => {}); // told where it is awaited, if the model does not fail first
    const output = await this.#call(stages);
    await this.#mark(stages);
    const lows = await this.#lower(stages, output);
    const done = await this.#update(stages, await draws, output, lasts.size < stages.size);
    const errors = lows === undefined ? undefined : await this.#errors(lows);
    for (const [lane, stage] of stages) {
      lane.pass(stage, errors?.get(lane));
      if (errors?.has(lane) && lane.isPast(stage)) await this.#accept(lane);
    }
    await this.#executor.pace();
    return done;
  }

  /** Waits until nothing is under way; then the states are what the lanes' positions say. */
  settle(): Promise<void> {
    return this.#executor.settle();
  }

  /** x of a lane after its last stage, where it lies; with `keeps` it stays as it is, else until the next advance. */
  x(lane: Lane): Tensor<'float32'> {
    this.#pool.isShown ||= this.keeps;
    return rowsOf(this.#pool.x, lane.first, lane.rows);
  }

  /** The mean of a lane's last update before its noise, with `keeps`. */
  mean(lane: Lane): Tensor<'float32'> {
    return rowsOf(this.#mean!, lane.first, lane.rows);
  }

  /** What a lane holds beside its position, where it lies, until the next advance. */
  state(lane: Lane): { x: Tensor; history: Tensor[]; base: Tensor | undefined; low: Tensor | undefined } {
    const { x, history, base, low } = this.#pool;
    const rows = (tensor: Tensor<'float32'>) => rowsOf(tensor, lane.first, lane.rows);
    return {
      x: rows(x),
      history: history.slice(0, lane.solver.history).map(rows),
      base: base && rows(base),
      low: low && rows(low.accepted),
    };
  }

  /** D = x + sigma^2 score of a lane's last network call. With `keeps`, and before the batch goes on. */
  denoised(lane: Lane): Tensor<'float32'> {
    const { x, output, stages } = this.#last!;
    const estimate: Stage = { ...stages.get(lane)!, update: { kind: 'linear', a: 0, b: [1], e: 0 } };
    const from = rowsOf(x, lane.first, lane.rows);
    const result = Tensor.empty(from.dims, { device: this.#executor.device });
    const m = operand(rowsOf(tensorOf(output), lane.first, lane.rows), 'the score');
    const [rows, cols, out] = [lane.rows, this.#cols, operand(result, 'denoised')];
    const records = () => this.#one(estimate, RowNormals.none);
    planStep({ rows, cols, records, x: operand(from, 'x'), output: m, out }).run();
    return result;
  }

  /** The state of a lane as a tensor of its own; the batch's memory itself where the lane has all of it, and then leaves. */
  async take(lane: Lane): Promise<Tensor<'float32'>> {
    if (lane.rows === this.capacity && !this.#pool.isShown) {
      await this.leave(lane);
      return this.#pool.release();
    }
    const own = Tensor.empty([lane.rows, ...this.#shape], { device: this.#executor.device });
    await this.copyTo(lane, own);
    await this.settle();
    return own;
  }

  /** Copies x of a lane. */
  copyTo(lane: Lane, to: Tensor<'float32'>): Promise<void> {
    return this.#pool.copy(rowsOf(this.#pool.x, lane.first, lane.rows), to, 'sample');
  }

  /** Waits for all work and gives the memory back. */
  async dispose(): Promise<void> {
    await this.#executor.end();
    this.#score?.dispose();
    this.#pool.dispose();
  }

  /** start z, and what the solver adds to it before the first call. */
  async #begin({ noise, solver, levels, rows }: Lane, x: Tensor<'float32'>): Promise<void> {
    if ('sampler' in noise) throw new ScoreSdeError('ERR_CONFIG', 'a noiseSampler needs sample, where the run begins');
    const into = operand(x, 'sample');
    const draw = (to: Operand, scale: number) =>
      this.#executor.work(planRandn(noise.generators, to, batchShape(to), scale));
    await draw(into, levels.start);
    const opening = solver.opening?.(levels) ?? 0;
    if (opening === 0) return;
    const added = Tensor.empty(x.dims, { device: this.#executor.device });
    const drawn = operand(added, 'noise');
    await draw(drawn, opening);
    const sum: LinearUpdate = { kind: 'linear', a: 1, b: [1], e: 0 };
    const records = () => {
      const record = recordsFor(1).fill(0);
      record[Row.kind] = RowKind.linear;
      record[Row.a] = sum.a;
      record[Row.terms] = record[Row.b] = 1;
      return record;
    };
    await this.#executor.work(planStep({ rows, cols: this.#cols, records, x: into, output: drawn, out: into }));
    await this.settle();
    added.dispose();
  }

  /** The network's output for the present states. */
  async #call(stages: Stages): Promise<Operand> {
    assertGoesOn(this.#signal);
    const [rows, network, { label, scale }] = [this.#rows, this.#network, this.#parameterization ?? plain];
    const told = new Float32Array(rows);
    for (const [lane, stage] of stages) told.fill(label(stage.sigma), lane.first, lane.first + lane.rows);
    const sigma = new Tensor('float32', told, [rows]);
    const sample = rowsOf(await this.#seen(stages, scale), 0, rows);
    this.#inputs ??= this.#prepared();
    const offer = (): Tensor<'float32'> => this.#offer();
    const context: ModelContext = {
      signal: this.#signal,
      get out() {
        return offer();
      },
    };
    const result = await this.#executor.call(network, sample, sigma, this.#inputs, context);
    assertGoesOn(this.#signal);
    return result !== undefined && result === this.#offered
      ? operand(result, 'the score')
      : checkedResult(result, sample.dims, sample);
  }

  #offer(): Tensor<'float32'> {
    this.#score ??= Tensor.empty([this.capacity, ...this.#shape], {
      device: this.#executor.modelDevice(this.#network),
    });
    return (this.#offered = rowsOf(this.#score, 0, this.#rows));
  }

  #prepared(): ModelInputs {
    const inputs = joinedInputs(this.#lanes);
    return this.#network.prepare?.([this.#rows, ...this.#shape], inputs) ?? inputs;
  }

  /** What the network sees of x. */
  async #seen(stages: Stages, scale: (sigma: number) => number): Promise<Tensor<'float32'>> {
    const { x } = this.#pool;
    if ([...stages.values()].every(({ sigma }) => scale(sigma) === 1)) return x;
    const scaled = (this.#scaled ??= this.#pool.own());
    await this.#pass(stages, x, scaled, (record, { sigma }) => (record[Row.a] = scale(sigma)));
    return scaled;
  }

  /** One pass from a tensor to another by records that are 1 x unless `write` says otherwise. */
  async #pass(
    stages: Stages,
    from: Tensor<'float32'>,
    to: Tensor<'float32'>,
    write: (record: Float32Array, stage: Stage, lane: Lane) => void,
    output?: Operand,
  ): Promise<void> {
    const records = () =>
      this.#each(stages, (record, stage, lane) => {
        record.fill(0);
        record[Row.kind] = RowKind.linear;
        record[Row.a] = 1;
        write(record, stage, lane);
      });
    const { history, base } = this.#pool;
    const call = planStep({
      rows: this.#rows,
      cols: this.#cols,
      records,
      x: operand(from, 'x'),
      output,
      history: history.map((kept) => operand(kept, 'history')),
      base: base && operand(base, 'base'),
      out: operand(to, 'out'),
    });
    await this.#executor.work(call);
  }

  /** The record of all rows of a lane that is alone. */
  #one(stage: Stage, normals: RowNormals): Float32Array {
    const record = recordsFor(1);
    writeRow(record, stage, { parameterization: this.#parameterization, normals, group: 0 });
    return record;
  }

  #each(stages: Stages, write: (record: Float32Array, stage: Stage, lane: Lane, row: number) => void): Float32Array {
    const records = recordsFor(this.#rows);
    for (const [lane, stage] of stages)
      for (let row = lane.first; row < lane.first + lane.rows; row++) write(recordOf(records, row), stage, lane, row);
    return records;
  }

  /** Hands over the update of all rows. */
  async #update(stages: Stages, draws: Draws, output: Operand, goesOn: boolean): Promise<{ done: Promise<void> }> {
    const [rows, cols, pool, index] = [this.#rows, this.#cols, this.#pool, this.#updates++];
    const { x, history, base } = pool;
    const all = [...stages.values()];
    // A corrector keeps its noise in `out` until its norm is known, so that it need not be drawn twice.
    const isApart = all.some(({ update }) => update.kind !== 'linear');
    const out = pool.target(this.keeps ? 'new' : isApart ? 'apart' : 'in place');
    const isMeant = this.keeps && all.some(({ endsStep }) => endsStep);
    this.#mean = isMeant ? Tensor.empty(pool.dims, { device: this.#executor.device }) : undefined;
    // What is pushed takes the place of the oldest value, which each element has been read from by then.
    const oldest = goesOn ? history.at(-1) : undefined;
    const groups = new Map(this.#lanes.map((lane, group) => [lane, group]));
    const parameterization = this.#parameterization;
    const records = () =>
      all.length === 1
        ? this.#one(all[0]!, draws.normals[0]!)
        : this.#each(stages, (record, stage, lane, row) => {
            const group = groups.get(lane)!;
            writeRow(record, stage, { parameterization, normals: draws.normals[group]!, group });
            record[Row.phase] = draws.phases[row] ?? 0;
          });
    const call = planStep({
      rows,
      cols,
      records,
      x: operand(x, 'sample'),
      output,
      draws,
      history: history.map((kept) => operand(kept, 'history')),
      base: base && operand(base, 'base'),
      out: operand(out, 'out'),
      mean: this.#mean && operand(this.#mean, 'mean'),
      pushed: oldest && operand(oldest, 'history'),
      mark: this.#executor.mark(index),
    });
    const places = [...stages].map(([lane, stage]) => ({ lane, stage, first: lane.first }));
    const fail = (bad: ArrayLike<number>): void => {
      for (const row of Array.from(bad)) {
        const { lane, stage, first } = places.find((place) => row < place.first + place.lane.rows)!;
        lane.fail(row - first, stage);
      }
    };
    const update = await this.#executor.update(call, rows * cols, { index, fail });
    this.#last = this.keeps ? { x, output, stages } : undefined;
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
      // In the first step the start stands for the result of lower order of the step before.
      if (lane.solver.tolerance && step === 0) await pool.copy(rows(pool.x), rows(this.#low().accepted), 'x');
    }
  }

  #low() {
    const pool = this.#pool;
    return (pool.low ??= { accepted: pool.own(), present: pool.own() });
  }

  /** The results of lower order, of the lanes whose step is to be measured. */
  async #lower(stages: Stages, output: Operand): Promise<Stages | undefined> {
    const measured = new Map([...stages].filter(([, { update }]) => update.kind === 'linear' && update.low));
    if (measured.size === 0) return undefined;
    const parameterization = this.#parameterization;
    const write = (record: Float32Array, stage: Stage): void => {
      const update = stage.update as LinearUpdate;
      if (update.low === undefined) return;
      const low: Stage = { ...stage, update: { ...update, a: 0, ...update.low } };
      writeRow(record, low, { parameterization, normals: RowNormals.none, group: 0 });
    };
    await this.#pass(stages, this.#pool.x, this.#low().present, write, output);
    return measured;
  }

  /** The error of each measured lane, once its update is over. */
  async #errors(measured: Stages): Promise<Map<Lane, number>> {
    await this.settle();
    const errors = new Map<Lane, number>();
    const { x } = this.#pool;
    const { accepted, present } = this.#low();
    for (const lane of measured.keys()) {
      const rows = (tensor: Tensor<'float32'>) => rowsOf(tensor, lane.first, lane.rows);
      if (lane.failure === undefined)
        errors.set(lane, await rowErrors(rows(x), rows(present), rows(accepted), lane.solver.tolerance!));
    }
    return errors;
  }

  /** The present result of lower order is that of the last accepted step. */
  async #accept(lane: Lane): Promise<void> {
    const { accepted, present } = this.#low();
    await this.#pool.copy(rowsOf(present, lane.first, lane.rows), rowsOf(accepted, lane.first, lane.rows), 'low');
  }

  /** The updates without a network call that lanes have to make first. */
  async #goBack(): Promise<void> {
    for (;;) {
      const stages = new Map(this.#lanes.map((lane) => [lane, lane.stage()]));
      const silent = [...stages].filter(([, stage]) => stage.calls === false);
      if (silent.length === 0) return;
      const write = (record: Float32Array, stage: Stage): void => {
        if (stage.calls !== false) return;
        writeRow(record, stage, { parameterization: undefined, normals: RowNormals.none, group: 0 });
      };
      // There is no output of a network, and b[0], which would multiply what it stands for, is 0.
      const { x } = this.#pool;
      await this.#pass(stages, x, x, write, operand(x, 'x'));
      for (const [lane, stage] of silent) lane.pass(stage);
    }
  }
}

/** A network that gives the score, and is told sigma. */
const plain = { label: (sigma: number) => sigma, scale: () => 1 };

const addsNoise = ({ update }: Stage): boolean => update.kind !== 'linear' || update.e !== 0;

function tensorOf({ type, memory, dims }: Operand): Tensor<'float32'> {
  return new Tensor(stateTypeOf(type), memory as never, dims) as Tensor<'float32'>;
}
