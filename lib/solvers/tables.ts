import { adjacentSigma, indexOf, type Schedule } from '../scheduler/schedule';
import type { Levels } from './solver';

/**
 * The levels of the reference's tables: at step i the network is told sigmas[i], and the step goes from discreteSigmas[k]
 * to discreteSigmas[k - 1] (0 at k = 0), k = trunc(t_i (N - 1)) in float32.
 * @throws ScoreSdeError ERR_STATE where no timesteps are set; ERR_RANGE where a timestep has no index
 */
export function levelsOfSchedule(
  schedule: Schedule,
  options: { sigmaMin: number; sigmaMax: number; centred?: boolean | undefined; calls?: number | undefined },
): Levels {
  const { sigmas, discreteSigmas } = schedule;
  const total = sigmas.length;
  const time = schedule.timesteps ?? new Float32Array(total);
  const sigma = new Float64Array(total);
  const next = new Float64Array(total);
  for (let i = 0; i < total; i++) {
    const k = indexOf(schedule, time[i]!);
    sigma[i] = discreteSigmas[k]!;
    next[i] = adjacentSigma(discreteSigmas, k);
  }
  const { sigmaMin, sigmaMax, centred = false, calls } = options;
  return { sigma, next, label: sigmas, start: sigmaMax, time, sigmaMin, sigmaMax, total, centred, calls };
}
