import type { StepSize } from '../native/abi';

/** What a position and a solver's options are made of, so that a run can be written to a file. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** The noise levels of a run, made once from its grid. Step i goes from sigma[i] to next[i]. */
export interface Levels {
  /** sigma_0 > sigma_1 > ... > 0: the level of x before step i. */
  readonly sigma: ArrayLike<number>;
  /** The level after step i: sigma[i + 1], and 0 after the last. */
  readonly next: ArrayLike<number>;
  /** What the network is told at step i: sigma[i], but for the reference's tables, which round sigma(t) in another way. */
  readonly label: ArrayLike<number>;
  /** What the run begins with: x = start z, as long as no sample is given. sigma[0], but for the reference's tables: sigmaMax. */
  readonly start: number;
  /** The time t of step i, where sigma(t) = sigmaMin (sigmaMax / sigmaMin)^t (eq. 31). */
  readonly time: ArrayLike<number>;
  /** The scheduler's range of noise levels, by which `time` is defined. */
  readonly sigmaMin: number;
  /** The highest noise level. */
  readonly sigmaMax: number;
  /** Steps of the whole grid. The levels may be its last ones only (`levelsFrom`). */
  readonly total: number;
  /** Whether the first update adds the mean of the data to a start of sigma_0 z, which has none: the centred start. */
  readonly centred: boolean;
  /**
   * Network calls to make in all. A solver leaves out corrections until it makes no more, but each step has one call at
   * least. As many as the steps take unless given.
   */
  readonly calls?: number | undefined;
}

/**
 * How x goes on after a network call. D = x + sigma^2 score is the denoised estimate of the call, sigma that of the stage;
 * D1, D2, ... are those of the calls before; z is a fresh standard normal. The sample is the x' of the last update without
 * its noise z; the noise of 'langevin' is never left out.
 */
export type Update =
  /** The reference's predictor, eq. 46, in the reference's bits: x' = x + (sigma^2 - next^2) score + sqrt(sigma^2 - next^2) z. */
  | { readonly kind: 'reverseDiffusion'; readonly sigma: number; readonly next: number }
  /** Algorithm 4: x' = x + step score + sqrt(2 step) z, with step by `stepSize`; `sigma` is that of 'ald'. */
  | { readonly kind: 'langevin'; readonly snr: number; readonly stepSize: StepSize; readonly sigma: number }
  | LinearUpdate;

/**
 * x' = a x + b[0] D + b[1] D1 + ... + base X0 + e z, at most seven b's. X0 is x as it was before the last update that had
 * `marks`.
 */
export interface LinearUpdate {
  /** Tells it from the other updates. */
  readonly kind: 'linear';
  /** The factor of x. */
  readonly a: number;
  /** The factors of D and of the D of the calls before, the newest first. */
  readonly b: readonly number[];
  /** The factor of the x that a stage before has marked. */
  readonly base?: number | undefined;
  /** The factor of the noise z. */
  readonly e: number;
  /** 'noise': the b's multiply eps = (x - D) / sigma of each call in place of D. All updates of a solver are of one kind. */
  readonly of?: 'noise' | undefined;
  /** Keeps x as X0 before the update. */
  readonly marks?: boolean | undefined;
  /** Of adaptive solvers: the result of lower order whose distance from x' is the error: b[0] D + ... + base X0. */
  readonly low?: { readonly b: readonly number[]; readonly base: number } | undefined;
}

/** One network call and one update. */
export interface Stage {
  /** The step that the stage is a part of, from 0. */
  readonly step: number;
  /** What the network is told. */
  readonly sigma: number;
  /** What is done after the network call. */
  readonly update: Update;
  /** The noise levels between which the update's noise takes x; those of the step unless given. */
  readonly noiseLevels?: readonly [sigma: number, sigmaNext: number] | undefined;
  /** Draws that the update takes from the row's stream: 1 where it adds noise. A draw may be taken and not used, as the reference does. */
  readonly draws: 0 | 1;
  /** Whether the step is over with it. An adaptive solver may reject the step: then the next stage has the same `step`. */
  readonly endsStep: boolean;
  /**
   * false: the update alone, without a network call (an adaptive solver's way back after a rejection). It pushes nothing:
   * b[0] is 0, and b[1] multiplies the D of the last call, b[2] the one before, as always.
   */
  readonly calls?: false | undefined;
}

/**
 * A sampler as data: a pure function from a position to a stage. It holds no tensors, so that a run can share its network
 * calls with others, be saved and go on elsewhere.
 */
export interface Solver<Position extends Json = Json> {
  /** The name by which it is made again, with its options, after a run was saved. */
  readonly name: string;
  /** Its options, as data: solvers of the same name and options are the same. */
  readonly options: { readonly [key: string]: Json };
  /** Which levels it takes where no grid is given: 'reference' are the scheduler's own tables. */
  readonly grid: 'karras' | 'reference';
  /** How many values of the calls before (D1, D2, ...) its updates combine at most: what must be kept between two calls. */
  readonly history: number;
  /** Whether its start is centred unless told otherwise. */
  readonly centred: boolean;
  /** Whether its noise comes from a draw at some stage; false for the solvers of the ODE. */
  readonly stochastic: boolean;
  /** Steps of a run that makes so many network calls, at least 1. Undefined: the solver decides on its steps. */
  steps?(calls: number): number;
  /** The network calls of a run over these levels; undefined where only the run tells. */
  calls(levels: Levels): number | undefined;
  /** Noise that x gets before the first call, in units of its standard deviation; one draw where it is above 0. */
  opening?(levels: Levels): number;
  /** The position before the first stage. ERR_CONFIG where the solver cannot use the levels. */
  start(levels: Levels): Position;
  /** A position that was read from a file. ERR_CONFIG unless it is one of this solver over these levels. */
  restore(levels: Levels, saved: unknown): Position;
  stage(levels: Levels, at: Position): Stage;
  /** The position after a stage; undefined: x is the sample. `error` is the row's own, of a stage with `low`. */
  next(levels: Levels, at: Position, error?: number): Position | undefined;
  /**
   * Of adaptive solvers: the error is the root mean square of (x' - low) / max(atol, rtol max(|low|, |low of the accepted
   * step before|)). In the first step the start takes the place of the latter.
   */
  readonly tolerance?: { readonly rtol: number; readonly atol: number } | undefined;
}
