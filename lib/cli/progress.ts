import { SingleBar } from 'cli-progress';
import { ScoreSdeError } from '../errors';
import type { SamplingProgress } from '../sampling/plan';
import { longRun } from './estimate';
import { warn } from './output';

/** Shows a run's progress on a terminal, and speaks up where a resumed run will take long. */
export class Progress {
  readonly #bar = new SingleBar({
    format: '{bar} {value}/{total} steps, {eta_formatted} left',
    hideCursor: true,
    gracefulExit: false, // its handlers of signals would come beside ours
  });
  #first: { readonly calls: number; readonly at: number } | undefined;
  #isJudged = false;
  #isStopped = false;

  /** @param resumed Of a resumed run: whether it is wanted although it takes long */
  constructor(private readonly resumed?: { readonly yes: boolean }) {}

  start(steps: number): void {
    this.#bar.start(steps, 0);
  }

  /** The run's onProgress. ERR_CONFIG, which ends the run, where it is not to go on without --yes. */
  readonly tell = (progress: SamplingProgress): void => {
    if (this.#isStopped) return;
    const { step, total } = progress;
    // An adaptive solver's number of steps is not known.
    if (!Number.isNaN(total)) {
      if (!this.#bar.isActive) this.#bar.start(total, 0);
      this.#bar.setTotal(total);
      this.#bar.update(step);
    }
    if (this.resumed !== undefined && !this.#isJudged) this.#judge(progress, this.resumed.yes);
  };

  stop(): void {
    this.#isStopped = true;
    this.#bar.stop();
  }

  /**
   * Whether what is left takes long, of a resumed run, whose options are fixed. The second step tells what a call takes: the
   * first one is slower, as memory is new to it.
   */
  #judge({ step, total, calls }: SamplingProgress, yes: boolean): void {
    const at = performance.now();
    if (this.#first === undefined) return void (this.#first = { calls, at });
    this.#isJudged = true;
    const secondsPerCall = (at - this.#first.at) / 1000 / (calls - this.#first.calls);
    const all = Math.round((calls / step) * total);
    const text = longRun({ secondsPerCall, calls: all - calls, images: 1 }, false);
    if (text !== undefined) sayLong(text, yes);
  }
}

/** ERR_CONFIG on a terminal, unless the user has agreed. With a pipe or a file at any end it is a program's: the run goes on. */
export function sayLong(text: string, yes: boolean): void {
  if (yes) return;
  const { stdin, stdout, stderr } = process;
  if (stdin.isTTY && stdout.isTTY && stderr.isTTY) throw new ScoreSdeError('ERR_CONFIG', `${text}; --yes begins it`);
  warn(text);
}
