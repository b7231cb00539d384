import { cpus } from 'node:os';
import { ScoreSdeError } from './errors';
import { show } from './options';
import { native } from './native/addon';

export interface DeviceInfo {
  /** 'cpu', 'cuda:0', ... */
  device: string;
  /** The processor's or the GPU's name. */
  name: string;
  /** Whether this package can compute on it. */
  available: boolean;
  /** Why it cannot be used, where `available` is false. */
  reason?: string | undefined;
  /** CPU: the instruction set in use. CUDA: the compute capability. */
  architecture?: string | undefined;
  /** Bytes of memory. CUDA only. */
  memory?: number | undefined;
}

/** The oldest compute capability that the CUDA kernels are compiled for. */
const oldest = 7.5;

interface Cuda {
  devices: DeviceInfo[];
  /** Why there are none; empty where there are some. */
  unavailable: string;
}

let found: Cuda | undefined;

/** The CUDA devices. The list is kept once every device has answered; a device that gave an error is asked again. */
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

/** All devices, 'cpu' first, and why each unavailable one is so. Without CUDA devices one entry 'cuda' tells why. */
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
 * The device, 'cpu' or 'cuda:N', that a device option names: 'cuda' is cuda:0, 'auto' the first usable GPU, else the CPU.
 * @throws ScoreSdeError ERR_CONFIG (no device's name), ERR_CUDA_UNAVAILABLE (the message tells why)
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

/** The number of threads that the CPU kernels may use. */
export function getNumThreads(): number {
  return native.getNumThreads();
}

/**
 * Sets the number of threads that the CPU kernels may use, for the whole process. The default is SCORE_SDE_NUM_THREADS from the
 * environment, else the CPUs that affinity and cgroup allow. No result depends on the number.
 * @param count An integer from 1 to 1024
 * @throws ScoreSdeError ERR_RANGE
 */
export function setNumThreads(count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > 1024)
    throw new ScoreSdeError('ERR_RANGE', `the number of threads must be an integer from 1 to 1024, got ${show(count)}`);
  native.setNumThreads(count);
}
