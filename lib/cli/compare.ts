import { randomInt } from 'node:crypto';
import { AbortError, ScoreSdeError } from '../errors';
import { ScoreSdeVePipeline } from '../sampling/pipeline';
import { solverOf } from '../solvers';
import { Sheet } from './compare/sheet';
import { longRun, measured } from './estimate';
import { interruption, loaded } from './interrupt';
import { assertPictures, pngOutput } from './output';
import { sayLong } from './progress';

export interface CompareOptions {
  calls: number[];
  solvers: string[];
  model: string;
  out: string;
  count?: number;
  seed?: bigint;
  label?: number[];
  device: string;
  yes?: boolean;
}

/**
 * score-sde compare: samples the same seeds with each solver and number of network calls, and writes one PNG with a row a
 * solver and a column a number of calls. It prints what each cell took.
 */
export async function compare(options: CompareOptions): Promise<void> {
  const { calls, solvers, model, device, label, seed = BigInt(randomInt(2 ** 32)), yes = false } = options;
  const signal = interruption();
  const out = await pngOutput(options.out);
  solvers.forEach(assertCallsCount);

  const pipeline = await loaded(ScoreSdeVePipeline.fromPretrained(model, { device }), signal);
  const { sampleShape } = pipeline;
  assertPictures(sampleShape);
  const count = options.count ?? (label && label.length > 1 ? label.length : 8);
  const columns = calls.map((n) => `${n} ${n === 1 ? 'call' : 'calls'}`);
  const sheet = new Sheet({ sampleShape, count, rows: solvers, columns });
  const modelInputs = label && { class_labels: label };
  if (modelInputs) pipeline.model.prepare?.([count, ...sampleShape], modelInputs);
  const shared = { batchSize: count, seed, signal };

  if (!yes) {
    const all = solvers.length * calls.reduce((sum, n) => sum + n, 0);
    const text = longRun(await measured(pipeline, { ...shared, label, calls: 2 }, { calls: all }), false);
    if (text !== undefined) sayLong(text, yes);
  }
  // The first call is slower than the others: it is no cell's.
  await pipeline.run({ ...shared, modelInputs, calls: 1 });

  const width = Math.max('solver'.length, ...solvers.map((name) => name.length));
  const line = (name: string, ...cells: string[]) =>
    out.say(name.padEnd(width) + cells.map((cell, i) => cell.padStart([7, 9, 12][i]!)).join(''));
  line('solver', 'calls', 'seconds', 'calls made');
  for (const [row, solver] of solvers.entries())
    for (const [column, n] of calls.entries()) {
      const result = await pipeline.run({ ...shared, modelInputs, solver, calls: n });
      sheet.put(row, column, await result.images.getData());
      line(solver, String(n), result.seconds.toFixed(2), String(result.calls));
    }
  const file = await sheet.toPng();
  if (signal.aborted) throw new AbortError(signal);
  await out.write(file);
  await pipeline.dispose();
  out.say(
    `${out.name}: ${count} ${count === 1 ? 'image' : 'images'} a cell, seed ${seed} (philox), on ${pipeline.device}`,
  );
}

/** ERR_CONFIG unless there is a solver of that name, and it can be told how many calls to make. */
function assertCallsCount(name: string): void {
  if (solverOf(name).steps === undefined)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `the solver ${name} decides on its calls itself and cannot be compared by them`,
    );
}
