import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { ScoreSdeError } from '../../errors';
import type { BenchType, PeerOp } from './cases';

export interface PeerRequest {
  threads: number[];
  shapes: readonly (readonly number[])[];
  types: BenchType[];
  ops: PeerOp[];
  seconds: number;
}

export interface PeerTimes {
  /** PyTorch's version, and its Python. */
  version: string;
  /** Median microseconds of an operation. */
  time(op: PeerOp, dims: readonly number[], type: BenchType, threads: number): number | undefined;
  /** Median microseconds of set_timesteps(2000) with set_sigmas(2000), which a constructor does, too. */
  tables: number;
}

const script = join(__dirname, '..', '..', '..', 'bench', 'torch_peer.py');
const pythons = ['python3', '/usr/bin/python3', 'python'];

function pythonWithTorch(): string {
  for (const python of pythons) {
    try {
      execFileSync(python, ['-c', 'import torch'], { stdio: 'ignore' });
      return python;
    } catch {
      // This Python is missing, or has no torch.
    }
  }
  throw new ScoreSdeError('ERR_IO', `--torch needs a Python with torch; tried ${pythons.join(', ')}`);
}

/** Times the same arithmetic in PyTorch. */
export function timePeer(request: PeerRequest): PeerTimes {
  const python = pythonWithTorch();
  const memory = String(2 ** 32); // makes glibc keep freed memory: new pages would take PyTorch longer than its work
  const env = {
    ...process.env,
    MALLOC_MMAP_THRESHOLD_: memory,
    MALLOC_TRIM_THRESHOLD_: memory,
    MALLOC_TOP_PAD_: memory,
  };
  const input = JSON.stringify(request);
  const output = execFileSync(python, [script], { input, env, encoding: 'utf8', maxBuffer: 2 ** 26 });
  const { version, times, tables } = JSON.parse(output) as {
    version: string;
    times: Record<string, number>;
    tables: number;
  };
  return {
    version: `${version} (${python})`,
    tables,
    time: (op, dims, type, threads) => times[[op, dims.join('x'), type, threads].join(' ')],
  };
}
