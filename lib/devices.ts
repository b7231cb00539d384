import { cpus } from 'node:os';
import { ScoreSdeError } from './errors';
import { show } from './options';
import { native } from './native/addon';

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

/** What the kernels are compiled for, as the build's oldest architecture. */
const oldest = 7.5;

interface Cuda {
  devices: DeviceInfo[];
  /** Why there are none. */
  unavailable: string;
}

let found: Cuda | undefined;

/** The CUDA devices. What there is does not change while a process lives, but for one of which nothing could be learned. */
function cuda(): Cuda {
  if (found) return found;
  const { devices, unavailable } = native.cudaDevices();
  const list: Cuda = {
    unavailable,
    devices: devices.map(({ name, memory, computeCapability, unusable }, index) => {
      const available = unusable === '' && Number(computeCapability) >= oldest;
      const reason =
        unusable || `its compute capability ${computeCapability} is below ${oldest}, which this build needs`;
      const known = unusable === '' ? { architecture: computeCapability, memory } : {};
      const info = { device: `cuda:${index}`, name, available, ...known };
      return available ? info : { ...info, reason };
    }),
  };
  if (devices.every(({ unusable }) => unusable === '')) found = list;
  return list;
}

/** Lists what can be computed on, and why the rest cannot. */
export function devices(): DeviceInfo[] {
  const cpu: DeviceInfo = {
    device: 'cpu',
    name: cpus()[0]?.model.trim() ?? 'CPU',
    available: true,
    architecture: native.instructionSet(),
  };
  const { devices, unavailable } = cuda();
  if (devices.length === 0) return [cpu, { device: 'cuda', name: 'CUDA', available: false, reason: unavailable }];
  return [cpu, ...devices.map((info) => ({ ...info }))];
}

/**
 * A device that can be used, from what the user asked for: 'cpu' or 'cuda:N'. 'cuda' is cuda:0, 'auto' the best there is.
 * @throws ScoreSdeError ERR_CONFIG, ERR_CUDA_UNAVAILABLE with the reason
 */
export function resolveDevice(device: unknown = 'cpu'): string {
  if (device === 'cpu') return device;
  if (device === 'auto') return cuda().devices.find(({ available }) => available)?.device ?? 'cpu';
  const index = typeof device === 'string' ? /^cuda(?::(\d+))?$/.exec(device) : null;
  if (index === null)
    throw new ScoreSdeError('ERR_CONFIG', `device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got ${show(device)}`);
  const { devices, unavailable } = cuda();
  const wanted = devices[Number(index[1] ?? 0)];
  if (wanted?.available) return wanted.device;
  const reason = wanted?.reason ?? (unavailable || `there are only ${devices.length} CUDA devices`);
  throw new ScoreSdeError('ERR_CUDA_UNAVAILABLE', `device '${device as string}' cannot be used: ${reason}`);
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
