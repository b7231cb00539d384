import { randomInt } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { AbortError, reasonOf, ScoreSdeError } from '../errors';
import { assertWritable, writeWhole } from '../files';
import { layoutOf, toPng } from '../image/png';
import { Generator } from '../random/generator';
import type { GeneratorKind } from '../random/kind';
import { ScoreSdeVePipeline } from '../sampling/pipeline';
import { assertOf, type StepsOptions } from '../sampling/plan';
import type { SamplingResult } from '../sampling/result';
import type { SamplingRun } from '../sampling/run';
import { onAbort } from '../signals';
import { solverOf, usualCalls, type Grid } from '../solvers';
import type { Tensor } from '../tensor/tensor';
import { longRun, measured } from './estimate';
import { exitCodeOf, interruption, loaded } from './interrupt';
import { assertPictures, pngOutput, warn } from './output';
import { Progress, sayLong } from './progress';

export interface SampleOptions {
  model: string;
  out?: string;
  batch?: number;
  calls?: number;
  steps?: number;
  solver?: string;
  grid?: string;
  rho?: number;
  eta?: number | 'authors';
  order?: number;
  sigmaMin?: number;
  sigmaMax?: number;
  snr?: number;
  seed?: bigint;
  engine: GeneratorKind;
  label?: number[];
  device: string;
  columns?: number;
  scale?: number;
  each?: boolean;
  maxRows?: number;
  saveOnInterrupt?: string;
  resume?: string;
  yes?: boolean;
}

/**
 * score-sde sample: samples images, or goes on with a saved run, writes the images as one PNG atomically, or as one each, and
 * prints how they were made. On a signal it writes nothing but the run, if that is asked for.
 */
export async function sample(options: SampleOptions): Promise<void> {
  const { model, device, label, engine, columns, scale, each = false, yes = false } = options;
  const signal = interruption();
  const outOf = (index: number) =>
    pngOutput(options.out ?? `${basename(resolve(model))}.png`, each ? index : undefined);
  const out = await outOf(0);
  const saveTo = options.saveOnInterrupt === undefined ? undefined : resolve(options.saveOnInterrupt);
  if (saveTo !== undefined) await assertWritable(saveTo);
  const { resume } = options;
  const saved = resume === undefined ? undefined : await readSaved(resume);
  const { isAdaptive, steps, ...sampler } = samplerOf(options);

  const pipeline = await loaded(ScoreSdeVePipeline.fromPretrained(model, { device }), signal);
  assertPictures(pipeline.sampleShape);
  const { seed = BigInt(randomInt(2 ** 32)) } = options;
  const generator = new Generator(seed, { engine });
  const batchSize = options.batch ?? (label && label.length > 1 ? label.length : 16);
  const modelInputs = label && { class_labels: label };
  if (saved === undefined) {
    // What would fail after the run, or after a question, fails now.
    layoutOf([each ? 1 : batchSize, ...pipeline.sampleShape], { columns, scale });
    if (modelInputs) pipeline.model.prepare?.([batchSize, ...pipeline.sampleShape], modelInputs);
  }
  const shared = {
    ...sampler,
    batchSize,
    maxRows: options.maxRows,
    ...(engine === 'torch' ? { generator } : { seed }),
  };
  if (saved === undefined && !yes) {
    const text = longRun(await measured(pipeline, { ...shared, label, signal }, { isAdaptive }));
    if (text !== undefined) sayLong(text, yes);
  }
  const progress = new Progress(saved && { yes });
  // A run that is to be saved ends once it is, and not by the signal.
  const watched = { signal: saveTo === undefined ? signal : undefined, onProgress: progress.tell };
  const run =
    saved !== undefined ? pipeline.resume(saved, watched) : pipeline.start({ ...shared, ...watched, modelInputs });
  if (saved === undefined && steps !== undefined) progress.start(steps);
  const stop = () => progress.stop();
  const result = await (saveTo === undefined ? run.result : resultOrSaved(run, saveTo, signal, stop)).finally(stop);
  if (result === undefined) {
    warn(`interrupted, the run is in ${saveTo}; this goes on with it: ${commandFor(saveTo!, options)}`);
    process.exitCode = exitCodeOf(signal.reason);
    return;
  }
  const { images, calls, seconds } = result;
  const files = each ? await pngOfEach(images, scale) : [await result.toPng({ columns, scale })];
  if (signal.aborted && saveTo === undefined) throw new AbortError(signal);
  let last = out;
  for (const [k, file] of files.entries()) {
    if (k > 0) last = await outOf(k);
    await last.write(file);
  }
  await pipeline.dispose();
  const seedText = saved === undefined ? `seed ${seed} (${engine})` : seedOf(result, resume!);
  const written = files.length === 1 ? out.name : `${out.name} to ${basename(last.name)}`;
  out.say(
    `${written}: ${images.dims[0]} ${images.dims[0] === 1 ? 'image' : 'images'}, ${seedText}, ${result.steps} steps of ${result.solver}, ` +
      `${calls} network calls, ${seconds.toFixed(2)} s on ${result.device}`,
  );
}

/** The PNG of each image. */
async function pngOfEach(images: Tensor, scale: number | undefined): Promise<Uint8Array[]> {
  const { dims, type } = images;
  const [count = 0, ...shape] = dims;
  const data = await images.getData();
  const files: Uint8Array[] = [];
  for (let k = 0; k < count; k++) {
    const size = data.length / count;
    files.push(await toPng({ data: data.subarray(k * size, (k + 1) * size), dims: [1, ...shape], type }, { scale }));
  }
  return files;
}

const seedOf = ({ seed }: SamplingResult, file: string) =>
  seed === undefined ? `the run of ${file}` : `seed ${seed} (philox)`;

/** Which options of a run the command line's are, and its steps. ERR_CONFIG, ERR_RANGE, before the model is loaded. */
function samplerOf(options: SampleOptions): StepsOptions & { isAdaptive: boolean; steps: number | undefined } {
  const { grid, rho, sigmaMin, sigmaMax, steps, solver: name } = options;
  const flat = Object.fromEntries(
    (['eta', 'order', 'snr'] as const).flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]])),
  );
  // Without a name, a number of calls is for the preset, and one of steps for the reference.
  const usual = steps === undefined ? 'er_sde' : 'pc';
  const reason = `without --solver ${steps === undefined ? 'the solver is' : '--steps takes the solver'} "${usual}"`;
  if (name === undefined) assertOf(usual, reason, flat);
  const solver = solverOf(name ?? usual, flat);
  const isAdaptive = solver.steps === undefined;
  const told = options.calls ?? steps ?? rho;
  if (isAdaptive && told !== undefined)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `the solver ${name} decides on its steps itself and takes no --calls, --steps or --rho, got ${told}`,
    );
  const calls = isAdaptive || steps !== undefined ? undefined : (options.calls ?? usualCalls);
  return {
    isAdaptive,
    steps: calls === undefined ? steps : solver.steps!(calls),
    ...flat,
    solver: name,
    grid: grid as Grid | undefined,
    rho,
    sigmaMin,
    sigmaMax,
    numInferenceSteps: steps,
    calls,
  };
}

async function readSaved(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new ScoreSdeError('ERR_IO', `cannot read ${path}: ${reasonOf(cause)}`, { cause });
  }
}

/** The samples; or undefined where a signal came first and the run is in the file. `stop` ends what shows progress. */
async function resultOrSaved(
  run: SamplingRun,
  file: string,
  signal: AbortSignal,
  stop: () => void,
): Promise<SamplingResult | undefined> {
  let saving: Promise<Uint8Array> | undefined;
  const save = () => {
    saving = run.save({ stop: true });
    saving.catch(() => {}); // told where it is awaited
    stop();
    warn('saving the run after the network calls under way; a second signal ends it unsaved');
  };
  if (signal.aborted) save();
  const endListening = onAbort(signal, save);
  try {
    return await run.result;
  } catch (error) {
    const bytes = await saving?.catch(() => undefined);
    if (bytes === undefined) throw error;
    await writeWhole(file, bytes);
    return undefined;
  } finally {
    endListening();
  }
}

/** The command that goes on with a saved run. */
function commandFor(file: string, { model, out, device, columns, scale, each }: SampleOptions): string {
  const words = ['score-sde', 'sample', '--resume', file];
  if (model !== 'digits') words.push('--model', model);
  if (device !== 'auto') words.push('--device', device);
  if (columns !== undefined) words.push('--columns', String(columns));
  if (scale !== undefined) words.push('--scale', String(scale));
  if (each) words.push('--each');
  if (out !== undefined) words.push('--out', out);
  return words.map((word) => (/^[\w./:=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(' ');
}
