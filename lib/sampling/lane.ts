import { AbortError, ScoreSdeError } from '../errors';
import type { ModelInputs } from '../models/model';
import type { Generator } from '../random/generator';
import type { Json, Levels, Solver, Stage } from '../solvers/solver';
import type { TensorLike } from '../tensor/tensor';

/** A source of normals of the caller's own: those with which x goes from level sigma to sigmaNext, as k-diffusion's noise_sampler. */
export type NoiseSampler = (sigma: number, sigmaNext: number) => TensorLike;

/** Where the draws of a lane come from: one generator for all its rows, one for each, or the caller. */
export type NoiseSource = { readonly generators: readonly Generator[] } | { readonly sampler: NoiseSampler };

export interface LaneOptions {
  readonly solver: Solver;
  readonly levels: Levels;
  /** Samples of the lane. */
  readonly rows: number;
  readonly noise: NoiseSource;
  /** The network's further inputs, as the user gave them. */
  readonly inputs: ModelInputs;
  /** Where the lane stands, if not at its beginning; null: the sample is there. */
  readonly position?: Json;
  /** Network calls before that position. */
  readonly calls?: number;
}

/** One request in the loop: its rows, its way and where it stands on it. Its state lies in the rows of a batch. */
export class Lane {
  readonly solver: Solver;
  readonly levels: Levels;
  readonly rows: number;
  readonly noise: NoiseSource;
  readonly inputs: ModelInputs;
  /** The stage that comes next; undefined once the sample is there. */
  position: Json | undefined;
  /** Network calls so far. */
  calls: number;
  /** The stage before the position, once there was one. */
  last: Stage | undefined;
  /** The first of its rows in the batch's pool; -1 where the lane is in none. */
  first = -1;
  #failure: ScoreSdeError | undefined;

  constructor(options: LaneOptions) {
    ({ solver: this.solver, levels: this.levels, rows: this.rows, noise: this.noise, inputs: this.inputs } = options);
    const { position } = options;
    if (position === undefined) this.position = this.solver.start(this.levels);
    else this.position = position === null ? undefined : this.solver.restore(this.levels, position);
    this.calls = options.calls ?? 0;
  }

  /** Why the lane cannot go on: ERR_NON_FINITE. */
  get failure(): ScoreSdeError | undefined {
    return this.#failure;
  }

  /** Whether the sample is there. */
  get done(): boolean {
    return this.position === undefined;
  }

  /** The stage that comes next. */
  stage(): Stage {
    return this.solver.stage(this.levels, this.position!);
  }

  /** Whether the stage that comes next is the last one. */
  get isLast(): boolean {
    return this.solver.tolerance === undefined && this.solver.next(this.levels, this.position!) === undefined;
  }

  /** Whether the lane has left the step of a stage behind. */
  isPast({ step }: Stage): boolean {
    return this.position === undefined || this.stage().step > step;
  }

  /** Goes on after a stage. */
  pass(stage: Stage, error?: number): void {
    this.last = stage;
    if (stage.calls !== false) this.calls++;
    this.position = this.solver.next(this.levels, this.position!, error);
  }

  /** Takes note that a row is not finite after a stage. The first report counts: later ones follow from it. */
  fail(row: number, { step, sigma, update }: Stage): void {
    const { length } = this.levels.sigma;
    const total = this.solver.calls(this.levels) === undefined ? '' : ` of ${length}`;
    this.#failure ??= new ScoreSdeError(
      'ERR_NON_FINITE',
      `step ${step}${total} (sigma ${Math.fround(sigma)}), sample ${row}: the ` +
        `${update.kind === 'langevin' ? 'corrector' : 'predictor'} gave values that are not finite; ` +
        'the model returned NaN, infinity, or a score of zero',
    );
  }
}

/** AbortError where the signal has spoken. */
export function assertGoesOn(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError(signal);
}
