import { randomInt } from 'node:crypto';
import { basename, resolve } from 'node:path';
import { SingleBar } from 'cli-progress';
import { AbortError } from '../errors';
import { assertWritable, writeWhole } from '../files';
import type { GeneratorKind } from '../random/kind';
import { Generator } from '../random/generator';
import { ScoreSdeVePipeline, type RunOptions } from '../sampling/pipeline';

export interface SampleOptions {
  model: string;
  out?: string;
  batch?: number;
  steps?: number;
  seed?: bigint;
  engine: GeneratorKind;
  label?: number[];
  device: string;
  columns?: number;
}

/** score-sde sample: samples images, writes them as one PNG atomically, and prints how they were made. */
export async function sample(options: SampleOptions): Promise<void> {
  const out = resolve(options.out ?? `${basename(resolve(options.model))}.png`);
  await assertWritable(out);
  const controller = new AbortController();
  const interrupt = () => controller.abort();
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);

  const pipeline = await ScoreSdeVePipeline.fromPretrained(options.model, { device: options.device });
  const { label, engine, seed = BigInt(randomInt(2 ** 32)) } = options;
  const run: RunOptions = {
    batchSize: options.batch ?? (label && label.length > 1 ? label.length : 16),
    numInferenceSteps: options.steps,
    ...(engine === 'torch' ? { generator: new Generator(seed, { engine }) } : { seed }),
    modelInputs: label && { class_labels: label },
    signal: controller.signal,
  };
  const bar = new SingleBar({ format: '{bar} {value}/{total} steps, {eta_formatted} left', hideCursor: true });
  bar.start(options.steps ?? pipeline.scheduler.config.numTrainTimesteps, 0);
  const result = await pipeline.run({ ...run, onStep: ({ index }) => bar.update(index + 1) }).finally(() => bar.stop());
  const file = await result.toPng({ columns: options.columns });
  if (controller.signal.aborted) throw new AbortError(controller.signal);
  await writeWhole(out, file);
  await pipeline.dispose();
  const { images, steps, calls, seconds, device } = result;
  process.stdout.write(
    `${out}: ${images.dims[0]} ${images.dims[0] === 1 ? 'image' : 'images'}, seed ${seed} (${engine}), ${steps} steps, ` +
      `${calls} network calls, ${seconds.toFixed(2)} s on ${device}\n`,
  );
}
