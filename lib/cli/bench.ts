import { resolve } from 'node:path';
import { getNumThreads } from '../devices';
import { assertWritable, writeWhole } from '../files';
import type { BenchType } from './bench/cases';
import { callLine, caseLine, header, machineLine, networkHeader, networkLine, summary } from './bench/report';
import { benchNetworks } from './bench/network';
import { runBench } from './bench/run';
import { say } from './output';

export interface BenchCommandOptions {
  threads?: number[];
  type: BenchType[];
  filter?: string;
  seconds: number;
  torch?: boolean;
  network?: boolean;
  json?: string;
}

/**
 * score-sde bench: times the kernels, compared with this machine's limits and, with `torch`, with PyTorch. With `network` it times
 * the built-in model, compared with an onnxruntime-node session.
 */
export async function bench({
  threads,
  type,
  filter,
  seconds,
  torch = false,
  network = false,
  json,
}: BenchCommandOptions): Promise<void> {
  const counts = threads ?? [...new Set([1, getNumThreads()])];
  if (json !== undefined) await assertWritable(resolve(json));
  const result = network ? await networks() : await kernels();
  if (json !== undefined) await writeWhole(resolve(json), `${JSON.stringify(result, null, 2)}\n`);

  async function kernels() {
    let isFirst = true;
    const result = await runBench({ threads: counts, types: type, seconds, filter, torch }, (measured) => {
      if (isFirst) say(header);
      isFirst = false;
      say(caseLine(measured));
    });
    say(summary(result));
    return result;
  }

  async function networks() {
    say(networkHeader);
    const result = await benchNetworks(seconds, (run) => say(networkLine(run)));
    result.machine.forEach((beside) => say(machineLine(beside)));
    result.calls.forEach((call) => say(callLine(call)));
    return result;
  }
}
