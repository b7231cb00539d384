import { ScoreSdeError } from '../errors';
import { assertInputs } from '../models/model';
import { assertFunction, assertSignal, show } from '../options';
import { Tensor } from '../tensor/tensor';
import { decode } from './checkpoint';
import type { ResumeOptions, RunPlan, Source } from './plan';

/** What goes on where a saved run stands. ERR_CONFIG, ERR_SHAPE, ERR_MODEL. */
export function resumed(source: Source, bytes: unknown, options: ResumeOptions): RunPlan {
  const { model, sampleShape, device } = source;
  const { signal, onProgress, noiseSampler } = options;
  if (Object.prototype.toString.call(bytes) !== '[object Uint8Array]')
    throw new ScoreSdeError('ERR_CONFIG', `a saved run must be a Uint8Array of its bytes, got ${show(bytes)}`);
  assertSignal(signal);
  assertFunction(onProgress, 'onProgress');
  assertFunction(noiseSampler, 'noiseSampler');
  const saved = decode(bytes as Uint8Array);
  const { dims, maxRows, solver, levels, seed, dataRange, places } = saved;
  if (String(dims.slice(1)) !== String(sampleShape))
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `the saved run must be of samples [${sampleShape.join(', ')}], got samples of [${dims.slice(1).join(', ')}]`,
    );
  if ((saved.noise === 'sampler') !== (noiseSampler !== undefined))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      saved.noise === 'sampler'
        ? 'the saved run drew from a noiseSampler: give it again'
        : 'the saved run has streams of its own and takes no noiseSampler',
    );
  const { modelInputs: inputs = saved.inputs } = options;
  assertInputs(inputs, 'modelInputs');
  const tensor = (values: Float32Array) => new Tensor('float32', values, dims);
  return {
    model,
    device,
    dims,
    maxRows,
    solver,
    solverName: solver.name,
    levels,
    noise: saved.noise === 'sampler' ? { sampler: noiseSampler! } : saved.noise,
    seed,
    inputs,
    prepared: model.prepare?.(dims, inputs) ?? inputs,
    dataRange,
    signal,
    onProgress,
    state: {
      x: tensor(saved.x),
      history: saved.history.map(tensor),
      base: saved.base && tensor(saved.base),
      low: saved.low && tensor(saved.low),
    },
    places,
  };
}
