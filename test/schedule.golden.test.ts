import { bitEqual, camelKeys, golden, goldens, schedulerOf, type SetupCall, type SnakeConfig } from './support/golden';

interface ScheduleCase {
  config: SnakeConfig;
  setup: SetupCall[];
  expect?: { init_noise_sigma?: number; len?: number; n?: number; len_sigmas?: number; config?: SnakeConfig };
}

describe.each(goldens('schedule'))('%s', (name) => {
  const { json, tensor, has } = golden<ScheduleCase>(name);
  const scheduler = schedulerOf(json.config, json.setup);
  const tables = {
    timesteps: scheduler.timesteps!,
    sigmas: scheduler.sigmas,
    discrete_sigmas: scheduler.discreteSigmas,
  };

  test.each(Object.entries(tables))('%s is bit-equal', (key, table) => {
    expect(table).toBeInstanceOf(Float32Array);
    let compared = 0;
    // Where the whole table is not stored, its ends are.
    for (const suffix of ['', '_head', '_tail']) {
      if (!has(key + suffix)) continue;
      const expected = tensor(key + suffix).data;
      if (suffix === '') expect(table).toHaveLength(expected.length);
      bitEqual(suffix === '_tail' ? table.slice(-expected.length) : table.slice(0, expected.length), expected);
      compared++;
    }
    expect(compared).toBeGreaterThan(0);
  });

  test('lengths, configuration and initNoiseSigma', () => {
    const { init_noise_sigma, len, n, len_sigmas, config } = json.expect ?? {};
    expect(scheduler.config).toMatchObject(camelKeys(config ?? json.config));
    expect(scheduler.initNoiseSigma).toBe(init_noise_sigma ?? json.config.sigma_max);
    expect(scheduler).toHaveLength(len ?? json.config.num_train_timesteps);
    if (n !== undefined) expect(Object.values(tables).map((table) => table.length)).toEqual([n, n, n]);
    if (len_sigmas !== undefined) expect(scheduler.sigmas).toHaveLength(len_sigmas);
  });

  if (has('index')) {
    const index = tensor<BigInt64Array>('index').data;

    test('the adjacent sigmas are bit-equal', () => {
      bitEqual(
        scheduler.getAdjacentSigma(Int32Array.from(index, Number), tables.timesteps),
        tensor('adjacent_sigma').data,
      );
      bitEqual(scheduler.getAdjacentSigma(index, tables.timesteps), tensor('adjacent_sigma').data);
    });

    test('every timestep leads to its index, sigma and diffusion', () => {
      bitEqual(
        Array.from(index, (i) => scheduler.discreteSigmas[Number(i)]!),
        tensor('sigma').data,
      );
      // With a zero sample and score, a noise of ones makes a step that is the diffusion coefficient itself.
      const dims = [index.length, 1];
      const zeros = { data: new Float32Array(index.length), dims };
      const noise = { data: new Float32Array(index.length).fill(1), dims };
      const { prevSample } = scheduler.stepPred(zeros, tables.timesteps, zeros, { noise });
      bitEqual(prevSample.data as Float32Array, tensor('diffusion').data);
    });
  }
});
