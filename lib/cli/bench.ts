import { resolve } from 'node:path';
import { getNumThreads } from '../devices';
import { writeWhole } from '../files';
import type { BenchType } from './bench/cases';
import { caseLine, header, summary } from './bench/report';
import { runBench } from './bench/run';

export interface BenchCommandOptions {
  threads?: number[];
  type: BenchType[];
  filter?: string;
  seconds: number;
  torch?: boolean;
  json?: string;
}

/** score-sde bench: the kernels beside this machine's limits and, where asked, beside PyTorch. */
export async function bench({
  threads,
  type,
  filter,
  seconds,
  torch = false,
  json,
}: BenchCommandOptions): Promise<void> {
  const say = (line: string) => void process.stdout.write(`${line}\n`);
  const counts = threads ?? [...new Set([1, getNumThreads()])];
  say(header);
  const result = await runBench({ threads: counts, types: type, seconds, filter, torch }, (c) => say(caseLine(c)));
  say(summary(result));
  if (json !== undefined) await writeWhole(resolve(json), `${JSON.stringify(result, null, 2)}\n`);
}
