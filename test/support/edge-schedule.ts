import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ScoreSdeVeScheduler } from '../../lib';
import { camelKeys, schedulerOf } from './golden';
import {
  differs,
  equal,
  floats,
  pred,
  refused,
  samePred,
  sameTensor,
  scheduler,
  X,
  type Handler,
  type StoredPred,
  type StoredTensor,
} from './edge';

export type Tables = Record<'timesteps' | 'sigmas' | 'discrete_sigmas', StoredTensor>;

const own = (config: object) => camelKeys(Object.fromEntries(Object.entries(config).filter(([key]) => key[0] !== '_')));

export function sameTables(s: ScoreSdeVeScheduler, stored: Partial<Tables>): void {
  if (stored.timesteps) sameTensor(s.timesteps!, stored.timesteps);
  if (stored.sigmas) sameTensor(s.sigmas, stored.sigmas);
  if (stored.discrete_sigmas) sameTensor(s.discreteSigmas, stored.discrete_sigmas);
}

const folders: string[] = [];
async function folder(): Promise<string> {
  folders.push(await mkdtemp(join(tmpdir(), 'score-sde-')));
  return folders.at(-1)!;
}
export const removeFolders = () => Promise.all(folders.map((path) => rm(path, { recursive: true })));

const saved = async (s: ScoreSdeVeScheduler) => {
  const path = await folder();
  await s.savePretrained(path);
  return { files: await readdir(path), json: await readFile(join(path, 'scheduler_config.json'), 'utf8') };
};

/** Checks of the constructor and of what is read and written. */
export const configuration: Record<string, Handler> = {
  ctor_default: equal(({ config, ...result }: { config: object }) => {
    const s = new ScoreSdeVeScheduler();
    const { timesteps, sigmas, discreteSigmas, initNoiseSigma, length, order } = s;
    const lengths = { timesteps: timesteps!.length, sigmas: sigmas.length, discrete: discreteSigmas.length };
    expect({ ...lengths, init_noise_sigma: initNoiseSigma, len: length, order }).toEqual(result);
    expect(s.config).toMatchObject(own(config));
  }),
  ctor_int_sigma_max: equal((text: string) =>
    expect(String(new ScoreSdeVeScheduler({ sigmaMax: 1348 }).initNoiseSigma)).toBe(text),
  ),
  // A number here has no integer type of its own: a file's 1348 stays 1348, a number is written as the float it is.
  save_config: differs(async ({ files, json, reloaded }: { files: string[]; json: string; reloaded: object }) => {
    const path = await folder();
    await writeFile(join(path, 'scheduler_config.json'), json);
    const s = await ScoreSdeVeScheduler.fromPretrained(path);
    expect(s.config).toMatchObject(own(reloaded));
    expect(await saved(s)).toEqual({ files, json });
    const made = await saved(new ScoreSdeVeScheduler({ snr: 0.17, sigmaMax: 1348 }));
    expect(made).toEqual({ files, json: json.replace('1348,', '1348.0,') });
  }),
  from_config_unknown: equal(async ({ foo, ...config }: { foo: number }) => {
    const s = ScoreSdeVeScheduler.fromConfig({ snr: 0.2, foo: 1 });
    expect(s.config).toMatchObject(own(config));
    expect(JSON.parse((await saved(s)).json)).toMatchObject({ foo });
  }),
  ctor_unknown_kw: refused('ERR_CONFIG', () => new ScoreSdeVeScheduler({ foo: 1 } as never)),
  from_pretrained_missing: refused('ERR_CONFIG', async () => ScoreSdeVeScheduler.fromPretrained(await folder())),
  config_attr: differs((snr) => {
    expect(new ScoreSdeVeScheduler().config.snr).toBe(snr);
    expect(new ScoreSdeVeScheduler()).not.toHaveProperty('snr');
  }),
  config_frozen: differs(() => expect(Object.isFrozen(new ScoreSdeVeScheduler().config)).toBe(true)),
};

/** Checks of the tables, and of steps whose tables do not fit together. */
export const tables: Record<string, Handler> = {
  'set_timesteps_2.0': differs(() => {
    const s = new ScoreSdeVeScheduler();
    s.setTimesteps(2.0);
    expect(s.timesteps).toHaveLength(2);
  }),
  set_timesteps_device: equal((stored: StoredTensor) => {
    const s = new ScoreSdeVeScheduler();
    s.setTimesteps(3, { device: 'cpu' });
    sameTensor(s.timesteps!, stored);
  }),
  eps_0: equal((stored: Tables) => {
    const [s, samplingEps] = [new ScoreSdeVeScheduler(), 0];
    s.setTimesteps(5, { samplingEps });
    s.setSigmas(5, { samplingEps });
    sameTables(s, stored);
  }),
  ...Object.fromEntries(
    Object.entries({ eps_gt_1: 2, eps_neg: -0.1 }).map(([id, samplingEps]) => [
      id,
      equal((stored: StoredTensor) => {
        const s = new ScoreSdeVeScheduler();
        s.setTimesteps(5, { samplingEps });
        sameTensor(s.timesteps!, stored);
      }),
    ]),
  ),
  sigmas_override: equal((stored: Tables & { config: object; init_noise_sigma: number }) => {
    const s = new ScoreSdeVeScheduler();
    s.setTimesteps(4);
    s.setSigmas(4, { sigmaMin: 1, sigmaMax: 8, samplingEps: 0.5 });
    sameTables(s, stored);
    expect(s.config).toMatchObject(own(stored.config));
    expect(s.initNoiseSigma).toBe(stored.init_noise_sigma);
  }),
  sigmas_first: equal(({ len_sigmas, first3, ...stored }: Tables & { len_sigmas: number; first3: StoredTensor }) => {
    const s = new ScoreSdeVeScheduler();
    s.setSigmas(3);
    s.setTimesteps(3);
    expect(s.sigmas).toHaveLength(len_sigmas);
    sameTensor(s.sigmas.slice(0, 3), first3);
    sameTables(s, stored);
  }),
  sigmas_timesteps_none: equal((stored: Tables) => {
    const s = new ScoreSdeVeScheduler();
    s.timesteps = null;
    s.setSigmas(4, { samplingEps: 0.25 });
    sameTables(s, stored);
  }),
  sigma_min_gt_max: equal(({ discrete, out }: Record<'discrete' | 'out', StoredTensor>) => {
    const s = scheduler(5, { sigma_min: 10, sigma_max: 0.1 });
    sameTensor(s.discreteSigmas, discrete);
    sameTensor(pred({ s }).prevSample, out);
  }),
  sigma_min_eq_max: equal((stored: Record<'discrete' | 'sigmas' | 'mid' | 'last', StoredTensor>) => {
    const s = scheduler(5, { sigma_min: 1, sigma_max: 1 });
    sameTables(s, { discrete_sigmas: stored.discrete, sigmas: stored.sigmas });
    // What is stored of the steps is how far the mean moves.
    const moved = (t: number) => floats(pred({ s, t }).prevSampleMean).map((v, i) => v - floats(X())[i]!);
    sameTensor(moved(0.5), stored.mid);
    sameTensor(moved(0), stored.last);
  }),
  mismatch_timesteps_only: equal((stored: StoredPred) =>
    samePred(pred({ s: schedulerOf({}, [['set_timesteps', [10]]]), t: 1 }), stored),
  ),
  mismatch_sigmas_only: refused('ERR_RANGE', () => pred({ s: schedulerOf({}, [['set_sigmas', [10]]]), t: 1 })),
  mismatch_sigmas_only_t_small: equal((stored: StoredPred) =>
    samePred(pred({ s: schedulerOf({}, [['set_sigmas', [10]]]), t: 0.004 }), stored),
  ),
  pred_right_after_ctor: equal((stored: StoredPred) => samePred(pred({ s: new ScoreSdeVeScheduler() }), stored)),
  N1_pred: equal((stored: StoredPred) => samePred(pred({ s: scheduler(1), t: 1 }), stored)),
  idx0: equal((stored: StoredPred) => samePred(pred({ t: 0 }), stored)),
  adj: equal(({ discrete, adj }: Record<'discrete' | 'adj', StoredTensor>) => {
    sameTensor(scheduler().discreteSigmas, discrete);
    sameTensor(adjacent([0, 1, 2, 9]), adj);
  }),
  adj_oob_by_one: equal((stored: StoredTensor) => sameTensor(adjacent([10]), stored)),
  adj_neg: equal((stored: StoredTensor) => sameTensor(adjacent([-1, -9]), stored)),
  adj_neg_oob: refused('ERR_RANGE', () => adjacent([-10])),
  adj_t_f64: differs((stored: StoredTensor) => sameTensor(adjacent([0, 3], Float64Array.of(1)), stored)),
};

function adjacent(indices: number[], t: Float32Array | Float64Array = scheduler().timesteps!): Float32Array {
  return scheduler().getAdjacentSigma(Int32Array.from(indices), t as Float32Array);
}
