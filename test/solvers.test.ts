import {
  levelsFrom,
  levelsOfGrid,
  levelsOfSchedule,
  preset,
  solverList,
  solverNames,
  solverOf,
  solverOptions,
  solvers,
  type Levels,
  type Solver,
} from '../lib/solvers';
import { inferenceSchedule } from '../lib/scheduler/schedule';
import { maxAbs, within } from './support/golden';
import { elementwise, lin, play, type Score } from './support/stages';

const range = { sigmaMin: 0.01, sigmaMax: 15 };
const fixed = solverNames.filter((name) => name !== 'dpm_adaptive');
/** Solvers with options that are not their defaults. */
const variants: [name: string, options: object][] = [
  ...fixed.map((name): [string, object] => [name, {}]),
  ['pc', { correctSteps: 3, snr: 0.1, stepSize: 'sample' }],
  ['pc', { predictor: 'euler_maruyama', corrector: 'ald', correctSteps: 2, compat: 'score_sde' }],
  ['pc', { corrector: 'none' }],
  ['pc', { correctSteps: 0 }],
  ['langevin', { correctSteps: 4, stepSize: 'dim' }],
  ['ald', { correctSteps: 2, compat: 'score_sde' }],
  ['er_sde', { order: 2, eta: 0.5, sNoise: 1.1 }],
  ['er_sde', { order: 1, eta: 'authors' }],
  ['dpmpp_2m_sde', { eta: 0.3, solverType: 'heun' }],
  ['dpmpp_3m_sde', { eta: 0 }],
  ['euler_ancestral', { eta: 0.4, sNoise: 0.9 }],
  ['heun', { churn: { amount: 8, min: 0.05, max: 5, noise: 1.007 } }],
  ['lms', { order: 2 }],
  ['ipndm', { order: 1 }],
  ['unipc', { order: 2, variant: 'bh1', lowerOrderFinal: false }],
];
const titled = variants.map(([name, options]) => [`${name} ${JSON.stringify(options)}`, name, options] as const);
/** They add no noise, and their updates are linear. */
const deterministic: [name: string, options: object][] = [
  ['euler', {}],
  ['heun', {}],
  ['dpmpp_2m', {}],
  ['dpmpp_3m_sde', { eta: 0 }],
  ['er_sde', { eta: 0 }],
  ['lms', {}],
  ['ipndm', {}],
  ['unipc', {}],
  ['unipc', { lowerOrderFinal: false }],
  ['dpm_adaptive', { rtol: 0 }],
  ['dpm_adaptive', { rtol: 0, order: 2, hInit: 2 }],
  ['dpm_adaptive', { rtol: 0, hInit: 5, atol: 1e-5 }],
];

const none = () => {
  throw new Error('no draw was expected');
};

function positions<P>(solver: Solver<any>, levels: Levels): P[] {
  const found: P[] = [];
  for (let at: any = solver.start(levels); at !== undefined; at = solver.next(levels, at)) found.push(at);
  return found;
}

function levelsFor(count: number, calls?: number, centred = false): Levels {
  return levelsOfGrid('karras', { count, calls, centred, ...range });
}

const refused = (code: string, message?: RegExp) =>
  message
    ? expect.objectContaining({ code, message: expect.stringMatching(message) })
    : expect.objectContaining({ code });

describe('the number of network calls', () => {
  it.each(titled)('%s: exactly n for n = 1 ... 500', (_, name, options) => {
    const solver = solverOf(name, options);
    for (let n = 1; n <= 500; n++) {
      const levels = levelsFor(solver.steps!(n), n);
      expect(solver.calls(levels)).toBe(n);
      expect(positions(solver, levels)).toHaveLength(n);
    }
  });

  it.each(titled)('%s: each step in its turn, ended once', (_, name, options) => {
    const solver = solverOf(name, options);
    for (const n of [1, 2, 3, 4, 5, 6, 7, 8, 20, 21]) {
      const levels = levelsFor(solver.steps!(n), n);
      const stages = positions<number>(solver, levels).map((at) => solver.stage(levels, at));
      expect(stages.filter(({ endsStep }) => endsStep).map(({ step }) => step)).toEqual(
        Array.from({ length: levels.sigma.length }, (_, i) => i),
      );
      let step = 0;
      for (const stage of stages) {
        expect(stage.step).toBe(step);
        if (stage.endsStep) step++;
      }
    }
  });

  it('is that of the steps where no number was asked for', () => {
    expect(solverOf('heun').calls(levelsFor(10))).toBe(19);
    expect(solverOf('pc').calls(levelsFor(10))).toBe(20);
    expect(solverOf('langevin', { correctSteps: 3 }).calls(levelsFor(10))).toBe(31);
    expect(solverOf('langevin', { correctSteps: 3, compat: 'score_sde' }).calls(levelsFor(10))).toBe(30);
    expect(solverOf('er_sde').calls(levelsFor(10))).toBe(10);
  });

  it('leaves the last corrections out first', () => {
    const heun = solvers.heun();
    const levels = levelsFor(5, 7);
    const steps = positions<number>(heun, levels).map((at) => heun.stage(levels, at).step);
    expect(steps).toEqual([0, 0, 1, 1, 2, 3, 4]);
    const pc = solvers.pc({ correctSteps: 2 });
    const few = levelsFor(4, 7);
    const kinds = positions<number>(pc, few).map((at) => pc.stage(few, at).update.kind[0]);
    expect(kinds.join('')).toBe('llrlrrr');
  });

  it('is at least one a step', () => {
    for (const name of ['heun', 'pc', 'er_sde']) {
      const solver = solverOf(name);
      expect(solver.calls(levelsFor(10, 3))).toBe(10);
      expect(solver.calls(levelsFor(10, 1000))).toBe(solver.calls(levelsFor(10)));
    }
  });
});

describe('stages', () => {
  it.each(titled)('%s: finite, pure, of known size, and with a draw where there is noise', (_, name, options) => {
    const solver = solverOf(name, options);
    for (const n of [1, 2, 3, 4, 5, 8, 30]) {
      for (const centred of solver.centred ? [false, true] : [false]) {
        const levels = Object.freeze(levelsFor(solver.steps!(n), n, centred));
        for (const at of positions<number>(solver, levels)) {
          const stage = solver.stage(levels, at);
          expect(solver.stage(levels, JSON.parse(JSON.stringify(at)))).toEqual(stage);
          expect(stage.sigma).toBeGreaterThan(0);
          const { update } = stage;
          if (update.kind !== 'linear') continue;
          const { a, b, base = 0, e } = update;
          for (const value of [a, ...b, base, e]) expect(Number.isFinite(value)).toBe(true);
          expect(e).toBeGreaterThanOrEqual(0);
          if (e > 0) expect(stage.draws).toBe(1);
          expect(b.length).toBeLessThanOrEqual(Math.min(at, solver.history) + 1);
          // A shift of the data shifts the sample: the coefficients of D and x have the sum 1, those of x alone with eps.
          if (!centred) expect(a + base + (update.of ? 0 : b.reduce((sum, bj) => sum + bj, 0))).toBeCloseTo(1, 12);
        }
      }
    }
  });

  it('a single call gives D', () => {
    for (const [name, options] of [
      ...deterministic,
      ...variants.filter(([name]) => /sde|ancestral|maruyama/.test(name)),
    ]) {
      if (JSON.stringify(options).includes('compat')) continue;
      const solver = solverOf(name, options);
      for (const centred of [false, true]) {
        if (solver.tolerance !== undefined) continue;
        const played = play(solver, levelsOfGrid([15, 0], { centred }), [3, -4], { rows: 2, score: lin, draw: none });
        within(played.sample, [3 / 226, -4 / 226], 1e-14);
        expect(played.sigmas).toHaveLength(1);
      }
    }
  });

  it('several names are one formula', () => {
    const levels = levelsFor(8);
    const rows = (solver: Solver) =>
      positions<number>(solver, levels).map((at) => solver.stage(levels, at).update as any);
    const same = (one: Solver, other: Solver) =>
      rows(one).forEach((row, i) => {
        const { a, b, e } = rows(other)[i];
        within([row.a, row.b[0], row.b[1] ?? 0, row.e], [a, b[0], b[1] ?? 0, e], 1e-12 * 15);
      });
    same(solverOf('ancestral_sampling'), solvers.eulerAncestral());
    same(solvers.erSde({ order: 1 }), solvers.eulerAncestral());
    same(solvers.erSde({ order: 1, eta: 0 }), solvers.euler());
    same(solvers.ipndm({ order: 1 }), solvers.lms({ order: 1 }));
    same(solvers.dpmpp2mSde({ eta: 0 }), solvers.dpmpp2m());
    // The variants differ in what multiplies the differences of D, of which order 1 has none but the corrector's.
    same(solvers.unipc({ order: 1, lowerOrderFinal: false }), solvers.unipc({ order: 1 }));
  });

  it('a run may begin at any step', () => {
    for (const name of ['er_sde', 'dpmpp_3m_sde', 'unipc', 'euler']) {
      const solver = solverOf(name);
      const levels = levelsFrom(levelsFor(12), 7);
      expect(positions(solver, levels)).toHaveLength(5);
      expect(solver.stage(levels, 0)).toMatchObject({ step: 0, sigma: levels.sigma[0], update: { b: { length: 1 } } });
    }
    const all = levelsFor(12);
    expect(levelsFrom(all, 7)).toMatchObject({ start: all.sigma[7], total: 12, calls: undefined });
    expect(levelsFrom(all, 0).start).toBe(15);
    for (const step of [-1, 12, 1.5, NaN]) expect(() => levelsFrom(all, step)).toThrow(refused('ERR_RANGE'));
    // The churn of a step and h = 1 / N are those of the whole grid.
    const churn = solvers.heun({ churn: { amount: 2 } });
    expect(churn.opening!(levelsFrom(all, 7))).toBeCloseTo(all.sigma[7]! * Math.sqrt((1 + 2 / 12) ** 2 - 1), 12);
  });
});

describe('the centred start', () => {
  // Data N(0.5, 1): a start without a mean is off by 0.1 at the end of the ODE.
  const gauss: Score = elementwise((x, sigma) => (0.5 - x) / (1 + sigma ** 2));

  it.each(deterministic.map(([name, options]) => [`${name} ${JSON.stringify(options)}`, name, options] as const))(
    '%s: the mean of the data',
    (_, name, options) => {
      const mean = (centred: boolean): number => {
        const solver = solverOf(name, options);
        const levels = levelsOfGrid('karras', { count: 60, sigmaMin: 0.01, sigmaMax: 5, centred });
        return play(solver, levels, [0], { rows: 1, score: gauss, draw: none }).sample[0]!;
      };
      expect(Math.abs(mean(false) - 0.4)).toBeLessThan(0.01);
      expect(Math.abs(mean(true) - 0.5)).toBeLessThan(0.01);
    },
  );

  it.each(deterministic.map(([name, options]) => [`${name} ${JSON.stringify(options)}`, name, options] as const))(
    '%s: is x + D in place of x, with the same D',
    (_, name, options) => {
      const solver = solverOf(name, options);
      const grid = { count: 12, sigmaMin: 0.02, sigmaMax: 5 };
      const start = Float64Array.of(4, -7, 1);
      const player = { rows: 3, draw: none };
      const got = play(solver, levelsOfGrid('karras', { ...grid, centred: true }), start, { ...player, score: gauss });
      const D = gauss(start, [5, 5, 5]).map((score, i) => start[i]! + 25 * score);
      const moved = start.map((x, i) => x + D[i]!);
      // The model gives the start's D for the point x + D, as often as it is asked for it.
      const score: Score = (x, sigma) =>
        Math.abs(sigma[0]! - 5) < 1e-9 ? x.map((value, i) => (D[i]! - value) / 25) : gauss(x, sigma);
      const expected = play(solver, levelsOfGrid('karras', grid), moved, { ...player, score });
      expect(got.sigmas).toHaveLength(expected.sigmas.length);
      within(got.sample, expected.sample, 1e-11 * maxAbs(moved));
    },
  );

  it('changes little where the data have no mean', () => {
    for (const name of ['er_sde', 'dpmpp_2m', 'heun', 'lms']) {
      const solver = solverOf(name, name === 'er_sde' ? { eta: 0 } : {});
      const run = (centred: boolean) =>
        play(solver, levelsFor(20, undefined, centred), [15, -20], { rows: 2, score: lin, draw: none }).sample;
      within(run(true), run(false), 0.01);
    }
  });

  it('is refused by a solver whose first update is no linear one', () => {
    for (const name of ['pc', 'reverse_diffusion', 'langevin'])
      expect(() => solverOf(name).start(levelsFor(5, undefined, true))).toThrow(
        refused('ERR_CONFIG', /start: 'centered' needs a solver whose first update is a linear one/),
      );
    const levels = levelsFor(5, undefined, true);
    expect(solverOf('ancestral_sampling').stage(levels, 0).update).toMatchObject({ kind: 'linear' });
  });
});

describe('dpm_adaptive', () => {
  /** The published loop of order 3 on one number, eps asked for again after each rejection. */
  function published(
    score: (x: number, sigma: number) => number,
    x: number,
    from: number,
    to: number,
    rtol: number,
    h: number,
  ) {
    const end = -Math.log(to);
    let s = -Math.log(from);
    let previous = x;
    let rejections = 0;
    let calls = 0;
    const sigma = (t: number) => Math.exp(-t);
    const eps = (x: number, t: number) => {
      calls++;
      return -sigma(t) * score(x, sigma(t));
    };
    while (s < end - 1e-5) {
      const t = Math.min(end, s + h);
      const d = t - s;
      const [s1, s2] = [s + d / 3, s + (2 * d) / 3];
      const e = eps(x, s);
      const u1 = x - sigma(s1) * Math.expm1(d / 3) * e;
      const e1 = eps(u1, s1);
      const low = x - sigma(t) * Math.expm1(d) * e - sigma(t) * 1.5 * Math.expm1(d) * (e1 - e);
      const y = (2 * d) / 3;
      const u2 = x - sigma(s2) * Math.expm1(y) * e - sigma(s2) * 2 * (Math.expm1(y) / y - 1) * (e1 - e);
      const e2 = eps(u2, s2);
      const high = x - sigma(t) * Math.expm1(d) * e - (sigma(t) / (2 / 3)) * (Math.expm1(d) / d - 1) * (e2 - e);
      const error = Math.abs(low - high) / Math.max(1e-3, rtol * Math.max(Math.abs(low), Math.abs(previous)));
      const factor = 1 + Math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1);
      h *= factor;
      if (factor >= 0.81) {
        [previous, x, s] = [low, high, t];
      } else rejections++;
    }
    return { x, rejections, calls };
  }
  const bumpy = (x: number, sigma: number) => -(x - Math.sin(3 * x)) / (0.3 + sigma * sigma);

  it.each([0.05, 2, 6])('is the published loop without its second calls (hInit %d)', (hInit) => {
    const expected = published(bumpy, 9, 12, 0.02, 0.001, hInit);
    const solver = solvers.dpmAdaptive({ rtol: 0.001, atol: 1e-3, hInit });
    const score = elementwise(bumpy);
    const got = play(solver, levelsOfGrid([12, 0.02], {}), [9], { rows: 1, score, draw: none });
    expect(Math.abs(got.called[0]! - expected.x)).toBeLessThan(1e-9);
    const back = got.stages.filter(({ calls }) => calls === false);
    expect(back).toHaveLength(expected.rejections);
    // The kept eps saves a call a rejection, but for the third in a row.
    const asked = back.filter(({ update }) => update.kind === 'linear' && update.b.length === 0).length;
    expect(got.sigmas).toHaveLength(expected.calls - expected.rejections + asked + 1);
    if (hInit === 6) expect(asked).toBeGreaterThan(0);
    for (const { update } of got.stages) if (update.kind === 'linear') expect(update.b.length).toBeLessThanOrEqual(7);
  });

  it('goes on from a position that was written as JSON', () => {
    const solver = solvers.dpmAdaptive();
    const levels = levelsOfGrid('karras', { count: 2, ...range });
    let at = solver.next(levels, solver.next(levels, solver.start(levels))!)!;
    at = solver.next(levels, at, 0.5)!;
    at = solver.next(levels, solver.next(levels, solver.next(levels, at)!)!, 40)!;
    expect(at).toMatchObject({ accepted: 1, rejected: 1, again: 1, call: -1 });
    const saved = solver.restore(levels, JSON.parse(JSON.stringify(at)));
    expect(solver.stage(levels, saved)).toEqual(solver.stage(levels, at));
    expect(solver.next(levels, saved)).toEqual(solver.next(levels, at));
    for (const wrong of [
      { ...at, h: 0 },
      { ...at, call: 3 },
      { ...at, errors: [1] },
      { ...at, again: 3 },
      { ...at, t: 9 },
      { ...at, t: 'x' },
      3,
      null,
      [],
    ])
      expect(() => solver.restore(levels, wrong)).toThrow(refused('ERR_CONFIG'));
  });

  it('ends with an error where no step is good enough', () => {
    const solver = solvers.dpmAdaptive();
    const levels = levelsOfGrid([15, 0.01], {});
    const last = { ...solver.start(levels), call: 2 };
    expect(() => solver.next(levels, last, NaN)).toThrow(refused('ERR_NON_FINITE'));
    expect(() => solver.next(levels, last)).toThrow(refused('ERR_NON_FINITE'));
    expect(() => solver.next(levels, { ...last, h: 1e-9 }, 1e6)).toThrow(refused('ERR_NON_FINITE', /however short/));
    expect(solver.calls(levels)).toBeUndefined();
    expect('steps' in solver).toBe(false);
  });
});

describe('grids', () => {
  it('one level is sigmaMax', () => {
    for (const grid of ['karras', 've', 'exponential', 'polyexponential', 'linear'] as const)
      expect(levelsOfGrid(grid, { count: 1, ...range })).toMatchObject({
        sigma: Float64Array.of(15),
        next: Float64Array.of(0),
        time: Float64Array.of(1),
      });
  });

  it('begins at sigmaMax and ends at sigmaMin, exactly, and knows its times', () => {
    for (const grid of ['karras', 've', 'polyexponential', 'linear'] as const) {
      const { sigma, next, time, start, total } = levelsOfGrid(grid, { count: 9, ...range });
      expect([sigma[0], sigma[8], next[8], time[0], time[8], start, total]).toEqual([15, 0.01, 0, 1, 0, 15, 9]);
      expect(Array.from(next).slice(0, 8)).toEqual(Array.from(sigma).slice(1));
    }
    const { time } = levelsOfGrid('ve', { count: 5, ...range });
    within(time, [1, 0.75, 0.5, 0.25, 0], 1e-15);
  });

  it('takes levels as they are', () => {
    for (const grid of [[5, 2, 1], [5, 2, 1, 0], Float32Array.of(5, 2, 1), Float64Array.of(5, 2, 1, 0)])
      expect(Array.from(levelsOfGrid(grid, {}).sigma)).toEqual([5, 2, 1]);
    expect(levelsOfGrid([5, 2], range).time[0]).toBeCloseTo(Math.log(500) / Math.log(1500), 14);
    const mine = [5, 2, 1];
    const { sigma } = levelsOfGrid(mine, { count: 3 });
    mine[0] = 7;
    expect(sigma[0]).toBe(5);
  });

  it.each([
    ['ERR_CONFIG', 'kerras', { count: 5, ...range }],
    ['ERR_CONFIG', undefined, { count: 5, ...range }],
    ['ERR_CONFIG', 5, { count: 5, ...range }],
    ['ERR_CONFIG', 'karras', { count: 5, sigmaMax: 15 }],
    ['ERR_CONFIG', 'karras', range],
    ['ERR_CONFIG', 've', { count: 5, rho: 3, ...range }],
    ['ERR_CONFIG', [3, 2], { rho: 3 }],
    ['ERR_RANGE', 'karras', { count: 0, ...range }],
    ['ERR_RANGE', 'karras', { count: 2 ** 24 + 1, ...range }],
    ['ERR_RANGE', 'karras', { count: 2.5, ...range }],
    ['ERR_RANGE', 'karras', { count: '5', ...range }],
    ['ERR_RANGE', 'karras', { count: 5, rho: 0, ...range }],
    ['ERR_RANGE', 'karras', { count: 5, rho: NaN, ...range }],
    ['ERR_RANGE', 'karras', { count: 5, rho: 1e-4, ...range }],
    ['ERR_RANGE', 'karras', { count: 5, sigmaMin: 15, sigmaMax: 15 }],
    ['ERR_RANGE', 'karras', { count: 5, sigmaMin: 20, sigmaMax: 15 }],
    ['ERR_RANGE', 'karras', { count: 5, sigmaMin: 0, sigmaMax: 15 }],
    ['ERR_RANGE', 'karras', { count: 5, sigmaMin: 0.01, sigmaMax: Infinity }],
    ['ERR_RANGE', [], {}],
    ['ERR_RANGE', [3], {}],
    ['ERR_RANGE', [3, 3 - 1e-15, 1], {}],
    ['ERR_RANGE', [3, 1e-320], {}],
    ['ERR_RANGE', [1e300, 1], {}],
    ['ERR_RANGE', [0], {}],
    ['ERR_RANGE', [1, 2], {}],
    ['ERR_RANGE', [2, 2], {}],
    ['ERR_RANGE', [2, -1], {}],
    ['ERR_RANGE', [2, 0, 0], {}],
    ['ERR_RANGE', [NaN, 1], {}],
    ['ERR_RANGE', [Infinity, 1], {}],
    ['ERR_RANGE', ['2', 1], {}],
    ['ERR_RANGE', [2, , 1], {}],
    ['ERR_RANGE', new BigInt64Array(2), {}],
    ['ERR_RANGE', [2, 1], { count: 3 }],
  ])('%s: %j, %j', (code, grid, options) => {
    expect(() => levelsOfGrid(grid as any, options as any)).toThrow(refused(code));
  });

  it("the reference's tables", () => {
    const config = { numTrainTimesteps: 7, snr: 0.15, samplingEps: 1e-5, correctSteps: 1, ...range };
    const schedule = inferenceSchedule(7, config);
    const levels = levelsOfSchedule(schedule, config);
    expect(Array.from(levels.label)).toEqual(Array.from(schedule.sigmas));
    expect(Array.from(levels.sigma)).toEqual(Array.from(schedule.discreteSigmas).reverse());
    expect(Array.from(levels.next)).toEqual([...Array.from(levels.sigma).slice(1), 0]);
    expect(levels).toMatchObject({ start: 15, total: 7, centred: false });
    expect(() => levelsOfSchedule({ ...schedule, timesteps: null }, config)).toThrow(refused('ERR_STATE'));
    // Any solver runs over them.
    expect(solvers.erSde().start(levels)).toBe(0);
    expect(positions(solvers.pc(), levels)).toHaveLength(14);
  });

  it("levels that stand still are for the paper's solvers alone", () => {
    const levels = { ...levelsFor(3), sigma: [3, 3, 1], next: [3, 1, 0] };
    expect(solvers.pc().start(levels)).toBe(0);
    expect(() => solvers.erSde().start(levels)).toThrow(refused('ERR_CONFIG', /decrease strictly/));
    expect(() => solvers.dpmAdaptive().start({ ...levels, sigma: [1, 3] })).toThrow(refused('ERR_CONFIG'));
    expect(() => solvers.dpmAdaptive().start(levelsFor(1))).toThrow(refused('ERR_CONFIG', /needs two noise levels/));
  });
});

describe('solverOf', () => {
  it.each(titled)('%s: is made again from its name and options', (_, name, options) => {
    const solver = solverOf(name, options);
    const again = solverOf(solver.name, JSON.parse(JSON.stringify(solver.options)));
    expect(again.options).toEqual(solver.options);
    const levels = levelsFor(6);
    expect(again.calls(levels)).toBe(solver.calls(levels));
    for (const at of positions<number>(solver, levels)) {
      expect(again.stage(levels, at)).toEqual(solver.stage(levels, at));
      expect(solver.restore(levels, at)).toBe(at);
    }
    for (const wrong of [-1, solver.calls(levels), 0.5, '0', null, undefined, {}])
      expect(() => solver.restore(levels, wrong)).toThrow(refused('ERR_CONFIG'));
  });

  it('dpm_adaptive is made again, too', () => {
    const solver = solverOf('dpm_adaptive', { order: 2, atol: 0.01 });
    expect(solverOf(solver.name, JSON.parse(JSON.stringify(solver.options))).options).toEqual(solver.options);
    expect(solver.tolerance).toEqual({ rtol: 0.05, atol: 0.01 });
  });

  it('takes a solver that was made', () => {
    const solver = solvers.erSde({ eta: 0 });
    expect(solverOf(solver)).toBe(solver);
    expect(solverOf(solver, { snr: undefined })).toBe(solver);
    expect(() => solverOf(solver, { eta: 1 })).toThrow(
      refused('ERR_CONFIG', /eta must be given where the solver is made/),
    );
  });

  it('fills in the defaults that a solver has', () => {
    const defaults = { snr: 0.3, correctSteps: 2, stepSize: 'sample' };
    expect(solverOf('pc', {}, defaults).options).toMatchObject(defaults);
    expect(solverOf('pc', { snr: 0.1 }, defaults).options).toMatchObject({ ...defaults, snr: 0.1 });
    expect(solverOf('langevin', {}, defaults).options).toMatchObject(defaults);
    expect(solverOf('ald', {}, defaults).options).toMatchObject({ snr: 0.3, stepSize: 'ald' });
    expect(solverOf('pc', { corrector: 'ald' }, defaults).options).toMatchObject({ snr: 0.3, stepSize: 'ald' });
    expect(solverOf('pc', { corrector: 'none' }, defaults).options).toEqual({
      predictor: 'reverse_diffusion',
      corrector: 'none',
    });
    for (const name of ['er_sde', 'reverse_diffusion', 'dpm_adaptive'])
      expect(() => solverOf(name, {}, defaults)).not.toThrow();
  });

  it.each([
    ['er_sde', { eta: -1 }, 'ERR_RANGE', /eta must be a finite number >= 0, got -1/],
    ['er_sde', { eta: NaN }, 'ERR_RANGE', /eta/],
    ['er_sde', { eta: '1' }, 'ERR_RANGE', /eta/],
    ['er_sde', { order: 4 }, 'ERR_RANGE', /order must be an integer from 1 to 3, got 4/],
    ['er_sde', { sNoise: -0.1 }, 'ERR_RANGE', /sNoise/],
    ['er_sde', { snr: 0.1 }, 'ERR_CONFIG', /"er_sde" has no corrector, and so no option "snr"/],
    ['er_sde', null, 'ERR_CONFIG', /options must be an object/],
    ['dpmpp_2m', { eta: 1 }, 'ERR_CONFIG', /has no option "eta"; it has none/],
    ['dpmpp_2m_sde', { eta: Infinity }, 'ERR_RANGE', /eta/],
    ['dpmpp_2m_sde', { solverType: 'euler' }, 'ERR_CONFIG', /solverType must be 'midpoint' or 'heun'/],
    ['dpmpp_3m_sde', { order: 3 }, 'ERR_CONFIG', /order/],
    ['euler', { churn: { amount: 1 } }, 'ERR_CONFIG', /churn/],
    ['euler_ancestral', { sNoise: NaN }, 'ERR_RANGE', /sNoise/],
    ['heun', { churn: {} }, 'ERR_CONFIG', /amount/],
    ['heun', { churn: 8 }, 'ERR_CONFIG', /object/],
    ['heun', { churn: { amount: -1 } }, 'ERR_RANGE', /churn.amount/],
    ['heun', { churn: { amount: 1, min: 2, max: 1 } }, 'ERR_RANGE', /churn.max/],
    ['heun', { churn: { amount: 1, smin: 2 } }, 'ERR_CONFIG', /"heun" has no option "churn.smin"; expected amount/],
    ['lms', { order: 5 }, 'ERR_RANGE', /from 1 to 4/],
    ['ipndm', { order: 0 }, 'ERR_RANGE', /from 1 to 4/],
    ['unipc', { order: 4 }, 'ERR_RANGE', /from 1 to 3/],
    ['unipc', { variant: 'bh3' }, 'ERR_CONFIG', /'bh1' or 'bh2'/],
    ['unipc', { lowerOrderFinal: 1 }, 'ERR_CONFIG', /lowerOrderFinal/],
    ['dpm_adaptive', { order: 1 }, 'ERR_RANGE', /from 2 to 3/],
    ['dpm_adaptive', { atol: 0 }, 'ERR_RANGE', /atol must be a finite number > 0/],
    ['dpm_adaptive', { hInit: -1 }, 'ERR_RANGE', /hInit/],
    ['dpm_adaptive', { hInit: 1e-300 }, 'ERR_RANGE', /hInit must be at least 1e-9/],
    ['dpm_adaptive', { acceptSafety: 1.5 }, 'ERR_RANGE', /acceptSafety must be at most 1, got 1.5/],
    ['dpm_adaptive', { rtol: NaN }, 'ERR_RANGE', /rtol/],
    ['pc', { eta: 1 }, 'ERR_CONFIG', /"pc" has no option "eta"/],
    ['pc', { predictor: 'none', corrector: 'none' }, 'ERR_CONFIG', /"none" for both/],
    ['pc', { predictor: 'none', correctSteps: 0 }, 'ERR_CONFIG', /"none" for both/],
    ['pc', { corrector: 'none', snr: 0.1 }, 'ERR_CONFIG', /snr is an option of a corrector/],
    ['pc', { corrector: 'ald', stepSize: 'dim' }, 'ERR_CONFIG', /stepSize/],
    ['pc', { stepSize: 'row' }, 'ERR_CONFIG', /stepSize/],
    ['pc', { predictor: 'euler' }, 'ERR_CONFIG', /predictor must be/],
    ['pc', { snr: -1 }, 'ERR_RANGE', /snr/],
    ['pc', { correctSteps: 1.5 }, 'ERR_RANGE', /correctSteps/],
    ['pc', { compat: 'diffusers' }, 'ERR_CONFIG', /compat/],
    ['reverse_diffusion', { snr: 0.1 }, 'ERR_CONFIG', /"reverse_diffusion" has no corrector, and so no option "snr"/],
    ['ald', { stepSize: 'batch' }, 'ERR_CONFIG', /has no option "stepSize"/],
    ['langevin', { correctSteps: 0 }, 'ERR_CONFIG', /"none" for both/],
    ['euler_a', {}, 'ERR_CONFIG', /there is no solver "euler_a"; expected pc, .*dpm_adaptive/],
    ['toString', {}, 'ERR_CONFIG', /there is no solver/],
    [undefined, {}, 'ERR_CONFIG', /solver must be one of/],
    [{ name: 'er_sde' }, {}, 'ERR_CONFIG', /or a Solver/],
  ])('%j, %j: %s', (name, options, code, message) => {
    expect(() => solverOf(name as any, options as any)).toThrow(refused(code, message));
  });

  it('lists what there is', () => {
    expect(solverList.map(({ name }) => name)).toEqual(solverNames);
    for (const { name, options, stochastic, source, callsPerStep } of solverList) {
      expect(solverOf(name).stochastic).toBe(stochastic);
      for (const option of options) expect(solverOptions).toContain(option);
      expect(source && callsPerStep).toBeTruthy();
    }
  });

  it('presets', () => {
    expect(preset(10)).toEqual({
      solver: 'er_sde',
      options: { order: 3, eta: 1 },
      grid: 'karras',
      rho: 7,
      centred: true,
    });
    expect(preset(6)).toMatchObject({ options: { eta: 0.5 }, rho: 5 });
    expect(preset(7).rho).toBe(7);
    for (const calls of [undefined, 0, -1, 1.5, NaN, '10', 2 ** 24 + 1])
      expect(() => preset(calls as never)).toThrow(refused('ERR_RANGE'));
  });
});
