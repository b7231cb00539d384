#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { BenchCommandOptions } from './bench';
import type { SampleOptions } from './sample';

const { version } = JSON.parse(readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8')) as {
  version: string;
};

/** Parses an integer option from `min` to `max`. */
const integer = (min: number, max: number) => (text: string) => {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max)
    throw new InvalidArgumentError(`Expected an integer from ${min} to ${max}.`);
  return value;
};

function seed(text: string): bigint {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError('Expected an integer.');
  return BigInt(text);
}

/** Parses one more value of an option that takes several integers. */
const integers =
  (min: number, max: number) =>
  (text: string, others: number[] = []): number[] => [...others, integer(min, max)(text)];

function positive(text: string): number {
  if (!(Number(text) > 0 && Number(text) < Infinity)) throw new InvalidArgumentError('Expected a number above 0.');
  return Number(text);
}

// A command's module is loaded when the command runs: doctor must also work where the addon does not load.
const program = new Command('score-sde')
  .description('Samples images from score-based generative models.')
  .version(version)
  .showHelpAfterError('(score-sde --help lists the options)');

program
  .command('sample')
  .description('sample images and write them as one PNG')
  .option('--model <dir>', "a pipeline's folder, or the name of a built-in model", 'digits')
  .option('--out <file>', "the PNG to write (default: the model's name)")
  .option('--batch <n>', 'how many images (default: 16, or as many as there are labels)', integer(1, 65536))
  .option('--steps <n>', "steps of the sampler (default: the model's)", integer(1, 2 ** 24))
  .option('--seed <n>', 'the seed (default: random)', seed)
  .addOption(
    new Option('--engine <name>', 'philox: image k is that of seed + k; torch: the draws of PyTorch')
      .choices(['philox', 'torch'])
      .default('philox'),
  )
  .option('--label <n...>', 'the class, one for all images or one for each', integers(0, 2 ** 31 - 1))
  .option('--device <name>', 'where the samples lie: auto, cpu, cuda or cuda:N', 'auto')
  .option('--columns <n>', 'images in a row (default: a square)', integer(1, 65535))
  .action(async (options: SampleOptions) => (await import('./sample.js')).sample(options));

program
  .command('bench')
  .description("time the kernels, beside this machine's limits")
  .option('--threads <n...>', 'numbers of threads (default: 1 and all)', integers(1, 1024))
  .addOption(
    new Option('--type <name...>', 'element types').choices(['float32', 'float16']).default(['float32', 'float16']),
  )
  .option('--filter <text>', 'only cases whose name holds this, as "8x3x256x256 stepPred philox"')
  .option('--seconds <s>', 'for each timing', positive, 0.2)
  .option('--torch', 'beside the same arithmetic in PyTorch, where a Python with torch is found')
  .option('--network', 'the built-in model instead, beside an onnxruntime-node session')
  .option('--json <file>', 'write the results there, too')
  .action(async (options: BenchCommandOptions) => (await import('./bench.js')).bench(options));

program
  .command('doctor')
  .description('say what is loaded from where, what works, why the rest does not, and what to do')
  .action(async () => (await import('./doctor.js')).doctor());

program.parseAsync().catch((error: Error & { code?: string }) => {
  if (error.code === 'ERR_ABORTED') {
    process.stderr.write('score-sde: interrupted, nothing was written\n');
    process.exitCode = 130;
    return;
  }
  process.stderr.write(
    `score-sde: ${error.name === 'ScoreSdeError' ? `${error.message} (${error.code})` : error.stack}\n`,
  );
  process.exitCode = 1;
});
