#!/usr/bin/env node
import { Command, CommanderError, Option } from 'commander';
import { gridNames } from '../solvers/grids';
import type { BenchCommandOptions } from './bench';
import type { CompareOptions } from './compare';
import type { DoctorOptions } from './doctor';
import { exitCodeOf } from './interrupt';
import { onLostOutput, warn } from './output';
import { version } from '../package';
import type { SampleOptions } from './sample';
import { eta, integer, integerList, integers, nonNegative, positive, seed, words } from './values';

const mostSteps = 2 ** 24;
const label = '<n...>';

// A command's module is loaded when the command runs: doctor and build must also work where the addon does not load.
const program = new Command('score-sde')
  .description('Samples images from score-based generative models.')
  .version(version)
  .exitOverride()
  .showHelpAfterError('(score-sde --help lists the commands, score-sde COMMAND --help the options of one)');

program
  .command('sample')
  .description('sample images and write them as one PNG, or as one each')
  .option('--model <dir>', "a pipeline's folder, or the name of a built-in model", 'digits')
  .option('--out <file>', "the PNG to write; - is standard output (default: the model's name)")
  .option('--batch <n>', 'how many images (default: 16, or as many as there are labels)', integer(1, 65536))
  .option('--calls <n>', 'network calls for each image (default: 20)', integer(1, mostSteps))
  .addOption(
    new Option('--steps <n>', "steps of the solver, in place of --calls; the solver is then 'pc' unless named")
      .argParser(integer(1, mostSteps))
      .conflicts('calls'),
  )
  .option('--solver <name>', 'the sampler: score-sde solvers lists them (default: er_sde); pc needs 100 calls or more')
  .addOption(new Option('--grid <name>', "how the noise levels lie (default: the solver's)").choices(gridNames))
  .option('--rho <x>', 'the exponent of the grids karras and polyexponential', positive)
  .option('--eta <x>', "how much noise the solver adds, 0 for none; authors: er_sde's own function", eta)
  .option('--order <n>', 'the order of the solver', integer(1, 16))
  .option('--sigma-min <x>', "the lowest noise level (default: the model's)", positive)
  .option('--sigma-max <x>', "the highest noise level (default: the model's)", positive)
  .option('--snr <x>', "signal-to-noise ratio of pc's corrector (default: the model's)", nonNegative)
  .option('--seed <n>', 'the seed (default: random)', seed)
  .addOption(
    new Option('--engine <name>', 'philox: image k is that of seed + k; torch: the draws of PyTorch')
      .choices(['philox', 'torch'])
      .default('philox'),
  )
  .option(
    `--label ${label}`,
    'the class, one for all images or one for each; of digits 0 to 9, or 10 for any',
    integers(0, 2 ** 31 - 1),
  )
  .option('--device <name>', 'where the samples lie: auto, cpu, cuda or cuda:N', 'auto')
  .option('--max-rows <n>', 'images that are in work at once, where memory is short (default: all)', integer(1, 65536))
  .option('--columns <n>', 'images in a row (default: a square)', integer(1, 65535))
  .option('--scale <n>', 'pixels across and down for each pixel of an image (default: 1)', integer(1, 64))
  .addOption(new Option('--each', 'a file for each image: x-0.png, x-1.png, ... for --out x.png').conflicts('columns'))
  .option('--save-on-interrupt <file>', 'on Ctrl-C or SIGTERM, save the run there, for --resume')
  .addOption(
    new Option('--resume <file>', 'go on with a saved run, which has its own seed, labels and solver').conflicts([
      ...['batch', 'calls', 'steps', 'solver', 'grid', 'rho', 'eta', 'order', 'sigmaMin', 'sigmaMax', 'snr'],
      ...['seed', 'engine', 'label', 'maxRows'],
    ]),
  )
  .option('--yes', 'on a terminal, begin a run of more than ten minutes; elsewhere any run begins')
  .addHelpText(
    'after',
    `
Which to choose:
  no option                  20 calls of er_sde.
  --calls 10                 Half the time. Below 5 calls the images are rough.
  --calls 50                 For a network with which compare shows a gain.
  --eta 0                    No noise on the way: the image depends on the start alone.
  --solver pc --steps 100    The reference's way, 200 calls. With --engine torch: the images of diffusers.
score-sde compare makes a picture of what several solvers and numbers of calls give with a network.`,
  )
  .action(async (options: SampleOptions) => (await import('./sample.js')).sample(options));

program
  .command('compare')
  .description('make a picture of what several solvers give with several numbers of network calls')
  .addOption(
    new Option('--calls <list>', 'numbers of network calls, a column each')
      .argParser(integerList(1, mostSteps))
      .default([5, 10, 20], '5,10,20'),
  )
  .addOption(
    new Option('--solvers <list>', 'solvers, a row each; pc needs 100 calls or more')
      .argParser(words)
      .default(['er_sde', 'dpmpp_2m', 'pc'], 'er_sde,dpmpp_2m,pc'),
  )
  .option('--model <dir>', "a pipeline's folder, or the name of a built-in model", 'digits')
  .option('--out <file>', 'the PNG to write; - is standard output', 'compare.png')
  .option('--count <n>', 'images in each cell (default: 8, or as many as there are labels)', integer(1, 256))
  .option('--seed <n>', 'the seed of the first image of each cell (default: random)', seed)
  .option(
    `--label ${label}`,
    'the class, one for all images or one for each; of digits 0 to 9, or 10 for any',
    integers(0, 2 ** 31 - 1),
  )
  .option('--device <name>', 'where the samples lie: auto, cpu, cuda or cuda:N', 'auto')
  .option('--yes', 'on a terminal, begin work of more than ten minutes; elsewhere any begins')
  .addHelpText(
    'after',
    `
Eight images of each of four solvers at three lengths, all from the same seeds:
  score-sde compare --calls 10,20,100 --solvers er_sde,dpmpp_2m,heun,pc --count 8 --seed 7 --out compare.png`,
  )
  .action(async (options: CompareOptions) => (await import('./compare.js')).compare(options));

program
  .command('solvers')
  .description('list the solvers: calls a step, whether they add noise, options, source')
  .option('--json', 'as JSON')
  .action(async (options: { json?: boolean }) => (await import('./solvers.js')).listSolvers(options));

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
  .option('--json', 'as JSON')
  .option('--model <dir>', "look at a pipeline's folder, too: whether its network is what it is said to be")
  .option('--check', 'call that network with noise however slow it is')
  .action(async (options: DoctorOptions) => (await import('./doctor.js')).doctor(options));

program
  .command('build')
  .description('compile the addon in this package, where no prebuilt binary fits or for CUDA')
  .addHelpText(
    'after',
    `
It takes CMake 3.23 or later, a C++20 compiler, and npm, which fetches cmake-js for it. Python is not needed.
SCORE_SDE_CUDA=ON insists on CUDA, SCORE_SDE_CUDA=OFF leaves it out; otherwise it is compiled where nvcc is found.`,
  )
  .action(async () => (await import('./build.js')).build());

let hasFailed = false;

/** Tells the first error, in one line; what fails because of it is not told. */
function fail(error: Error & { code?: string }): void {
  const isUsage = error instanceof CommanderError; // commander has written its own line
  if (hasFailed || (isUsage && error.exitCode === 0)) return;
  hasFailed = true;
  process.exitCode = error.code === 'ERR_ABORTED' ? exitCodeOf(error.cause) : 1;
  if (isUsage) return;
  if (error.code === 'ERR_ABORTED') warn('interrupted, nothing was written');
  else warn(error.name === 'ScoreSdeError' ? `${error.message} (${error.code})` : (error.stack ?? error.message));
}

onLostOutput(fail);
program.parseAsync().catch(fail);
