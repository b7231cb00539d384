import { ScoreSdeError } from '../errors';
import type { ModelInputs } from '../models/model';
import type { Generator } from '../random/generator';
import type { Json, Levels, Solver, Stage } from '../solvers/solver';
import type { TensorLike } from '../tensor/tensor';

/**
 * A source of normals of the caller's own: those with which x goes from level sigma to sigmaNext, as k-diffusion's noise_sampler.
 * Heun's churn goes from sigma_i up to sigma_i (1 + gamma).
 */
export type NoiseSampler = (sigma: number, sigmaNext: number) => TensorLike;

/** Where the draws of a lane come from: one generator for all its rows, one for each, or the caller. */
export type NoiseSource = { readonly generators: readonly Generator[] } | { readonly sampler: NoiseSampler };

/** Where a lane stands. */
export interface Place {
  /** The position before the next stage; undefined once the sample is there. */
  readonly position: Json | undefined;
  /** Network calls so far. */
  readonly calls: number;
  /** Steps so far. */
  readonly steps: number;
  /** Whether it waits for room in the batch, with its start drawn. */
  readonly waits?: true;
}

export interface LaneOptions {
  readonly solver: Solver;
  readonly levels: Levels;
  /** Samples of the lane. With an adaptive solver a lane has one. */
  readonly rows: number;
  readonly noise: NoiseSource;
  /** The network's further inputs, as the user gave them. */
  readonly inputs: ModelInputs;
  /** Where the lane stands; at its beginning unless given. */
  readonly place?: Place | undefined;
  /** The number of its first sample in the request, for messages; 0 unless given. */
  readonly firstSample?: number | undefined;
}

/** Which samples of a run a lane has. */
export interface Part {
  readonly first: number;
  readonly rows: number;
}

/**
 * The lanes that a run of so many samples is divided into: one each with an adaptive solver, which takes each sample its own
 * way; as many as may go at once; or one for all.
 */
export function partsOf(rows: number, maxRows: number | undefined, solver: Solver): Part[] {
  const each = solver.tolerance !== undefined ? 1 : Math.min(maxRows ?? rows, rows);
  return Array.from({ length: Math.ceil(rows / each) }, (_, i) => ({
    first: i * each,
    rows: Math.min(each, rows - i * each),
  }));
}

/** The next stage of each lane. */
export type Stages = ReadonlyMap<Lane, Stage>;

/** One request in the loop: its rows, its solver and levels, and its place. Its state lies in the rows of a batch. */
export class Lane {
  readonly solver: Solver;
  readonly levels: Levels;
  readonly rows: number;
  readonly noise: NoiseSource;
  readonly inputs: ModelInputs;
  /** Whether the lane began at its solver's start. */
  readonly isNew: boolean;
  readonly #firstSample: number;
  #position: Json | undefined;
  #calls: number;
  #steps: number;
  #last: Stage | undefined;
  #began = NaN;
  #failure: Error | undefined;
  /** The number of the update whose rows were first not finite. */
  #failedAt = Infinity;
  /** The first of its rows in the batch's pool; -1 where the lane is in none. */
  first = -1;

  /** @throws ScoreSdeError ERR_CONFIG (levels or a position that the solver refuses, rows of an adaptive solver) */
  constructor({ solver, levels, rows, noise, inputs, place, firstSample = 0 }: LaneOptions) {
    if (solver.tolerance !== undefined && rows !== 1)
      throw new ScoreSdeError('ERR_CONFIG', `a lane of the adaptive solver ${solver.name} has one row, got ${rows}`);
    this.solver = solver;
    this.levels = levels;
    this.rows = rows;
    this.noise = noise;
    this.inputs = inputs;
    this.isNew = place === undefined || place.waits === true;
    this.#firstSample = firstSample;
    this.#calls = place?.calls ?? 0;
    this.#steps = place?.steps ?? 0;
    if (place === undefined) this.#position = solver.start(levels);
    else this.#position = place.position === undefined ? undefined : solver.restore(levels, place.position);
  }

  get place(): Place {
    return { position: this.#position, calls: this.#calls, steps: this.#steps };
  }

  /** Network calls so far. */
  get calls(): number {
    return this.#calls;
  }

  /** Steps so far. */
  get steps(): number {
    return this.#steps;
  }

  /** The stage before the place, once there was one. */
  get last(): Stage | undefined {
    return this.#last;
  }

  /** The noise level at which the last stage's step began. */
  get began(): number {
    return this.#began;
  }

  /** Why the lane cannot go on: ERR_NON_FINITE, or what its solver threw. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Whether the sample is there. */
  get done(): boolean {
    return this.#position === undefined;
  }

  /** The stage that comes next. */
  stage(): Stage {
    return this.solver.stage(this.levels, this.#position!);
  }

  /** Whether the stage that comes next is the last one. */
  get isLast(): boolean {
    return this.solver.tolerance === undefined && this.solver.next(this.levels, this.#position!) === undefined;
  }

  /** Whether the step of the last stage is over. An adaptive solver may have rejected it. */
  get endedStep(): boolean {
    return this.#last?.endsStep === true && (this.done || this.stage().step > this.#last.step);
  }

  /** Goes on after a stage. Where the solver refuses to, the lane has failed. */
  pass(stage: Stage, error?: number): void {
    if (stage.step !== this.#last?.step)
      this.#began = this.solver.tolerance === undefined ? this.levels.label[stage.step]! : stage.sigma;
    if (stage.calls !== false) this.#calls++;
    this.#last = stage;
    try {
      this.#position = this.solver.next(this.levels, this.#position!, error);
      if (this.endedStep) this.#steps++;
    } catch (failure) {
      this.#failure ??= failure as Error;
    }
  }

  /** Takes note that a row is not finite after a stage. The first of the updates counts: the others follow from it. */
  fail(row: number, { step, sigma, update }: Stage, index: number): void {
    if (index >= this.#failedAt) return;
    this.#failedAt = index;
    const total = this.solver.tolerance === undefined ? ` of ${this.levels.sigma.length}` : '';
    const phase = update.kind === 'langevin' ? 'corrector' : 'predictor';
    this.#failure = new ScoreSdeError(
      'ERR_NON_FINITE',
      `step ${step}${total} (sigma ${Math.fround(sigma)}): the ${phase} gave values that are not finite in sample ` +
        `${this.#firstSample + row}; the model returned NaN, infinity, or a score of zero`,
    );
  }
}
