// The quality of the built-in model's digits by solver and number of network calls: npm run quality -- --help
import { writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { ScoreSdeVePipeline } from 'score-sde';
import { pixels } from './digits.js';
import { Classifier, measure, readReal } from './measure.js';

function positive(text) {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('Expected an integer above 0.');
  return Number(text);
}
const list = (parse) => (text) => text.split(',').map(parse);

const options = new Command('quality')
  .description('Measures the digits of the built-in model against real digits.')
  .option('--samples <n>', 'digits for each measurement, labels 0 to 9 in turn', positive, 1000)
  .option('--seeds <n>', 'measurements of each solver and number of calls, each of other seeds', positive, 1)
  .option('--solvers <names>', "solvers, 'pc' is the reference", list(String), ['pc', 'er_sde'])
  .option('--calls <numbers>', 'network calls of a run', list(positive), [5, 10, 20, 50, 100, 200])
  .option('--batch <n>', 'digits of a run', positive, 100)
  .option('--json <file>', 'write the results there, too')
  .parse()
  .opts();

const pipeline = await ScoreSdeVePipeline.fromPretrained('digits', { device: 'cpu' });
const classifier = await Classifier.load();
const real = readReal();

/** Digit i is of label i % 10 and of seed first + i, whatever the solver and the batch. */
async function sample(solver, calls, first) {
  const { samples, batch } = options;
  const images = new Float32Array(samples * pixels);
  const labels = Array.from({ length: samples }, (_, i) => i % 10);
  let [seconds, callsMade] = [0, 0];
  for (let start = 0; start < samples; start += batch) {
    const batchLabels = labels.slice(start, start + batch);
    const result = await pipeline.run({
      batchSize: batchLabels.length,
      seed: first + start,
      modelInputs: { class_labels: batchLabels },
      solver,
      calls,
    });
    images.set(result.images.data, start * pixels);
    seconds += result.seconds;
    callsMade += (result.calls * batchLabels.length) / samples;
  }
  return { images, labels, seconds, callsMade };
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The mean, and the standard deviation where there is more than one value. */
function spread(values, places) {
  const centre = mean(values);
  if (values.length === 1) return centre.toFixed(places);
  const squares = values.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  return `${centre.toFixed(places)} +- ${Math.sqrt(squares / (values.length - 1)).toFixed(places)}`;
}

function print(...cells) {
  const widths = [18, 7, 7, 18, 18, 0];
  const line = cells.map((cell, i) => cell.padEnd(widths[i])).join('');
  console.log(line.trimEnd());
}

const { floor } = real;
print('solver', 'calls', 'made', 'Frechet distance', 'label right', 'seconds');
print(`${floor.digits} real digits`, '', '', floor.frechet.toFixed(2), floor.accuracy.toFixed(3));
const results = [];
for (const solver of options.solvers)
  for (const calls of options.calls) {
    const rows = [];
    for (let i = 0; i < options.seeds; i++) {
      const seed = i * options.samples;
      const { seconds, callsMade, ...digits } = await sample(solver, calls, seed);
      rows.push({ solver, calls, callsMade, seed, seconds, ...(await measure(classifier, digits, real)) });
    }
    const column = (key) => rows.map((row) => row[key]);
    const made = mean(column('callsMade')).toFixed(1).replace('.0', '');
    const [frechet, accuracy] = [spread(column('frechet'), 2), spread(column('accuracy'), 3)];
    print(solver, String(calls), made, frechet, accuracy, mean(column('seconds')).toFixed(1));
    results.push(...rows);
    // Written after each row, so that a run that is stopped leaves what it has measured.
    if (options.json !== undefined) await writeFile(options.json, report());
  }
await classifier.dispose();
await pipeline.dispose();

function report() {
  const machine = `${cpus()[0].model.trim()}, ${cpus().length} CPUs, node ${process.version}`;
  const date = new Date().toISOString().slice(0, 10);
  return `${JSON.stringify({ machine, date, samples: options.samples, floor, results }, null, 2)}\n`;
}
