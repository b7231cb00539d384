import { cpus } from 'node:os';
import { ScoreSdeError, show } from './errors';
import { native } from './native';

export interface DeviceInfo {
  /** 'cpu', 'cuda:0', ... */
  device: string;
  name: string;
  available: boolean;
  /** Why it cannot be used. */
  reason?: string;
  /** CPU: the instruction set in use. CUDA: the compute capability. */
  architecture?: string;
  /** Bytes, CUDA only. */
  memory?: number;
}

const cudaNotYet = 'the CUDA kernels are not part of this release';

/** Lists what can be computed on, and why the rest cannot. */
export function devices(): DeviceInfo[] {
  const cpu: DeviceInfo = {
    device: 'cpu',
    name: cpus()[0]?.model.trim() ?? 'CPU',
    available: true,
    architecture: native.instructionSet(),
  };
  const { devices: found, unavailable } = native.cudaDevices();
  if (found.length === 0) return [cpu, { device: 'cuda', name: 'CUDA', available: false, reason: unavailable }];
  return [
    cpu,
    ...found.map(({ name, memory, computeCapability }, index) => ({
      device: `cuda:${index}`,
      name,
      available: false,
      reason: cudaNotYet,
      architecture: computeCapability,
      memory,
    })),
  ];
}

/** A device that can be used, from what the user asked for: 'auto' takes the best there is. */
export function resolveDevice(device: unknown = 'cpu'): 'cpu' {
  if (device === 'cpu' || device === 'auto') return 'cpu';
  if (typeof device === 'string' && /^cuda(:\d+)?$/.test(device)) {
    const reason = native.cudaDevices().unavailable || cudaNotYet;
    throw new ScoreSdeError('ERR_CUDA_UNAVAILABLE', `device '${device}' cannot be used: ${reason}`);
  }
  throw new ScoreSdeError('ERR_CONFIG', `device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got ${show(device)}`);
}

/** How many threads the CPU kernels may use at once. */
export function getNumThreads(): number {
  return native.getNumThreads();
}

/**
 * Sets how many threads the CPU kernels may use: an integer from 1 to 1024, for the whole process. The default is what
 * affinity and cgroup grant; the environment variable SCORE_SDE_NUM_THREADS overrides it. No result depends on it.
 */
export function setNumThreads(count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > 1024)
    throw new ScoreSdeError('ERR_RANGE', `the number of threads must be an integer from 1 to 1024, got ${show(count)}`);
  native.setNumThreads(count);
}
