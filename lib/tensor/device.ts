import { resolveDevice } from '../devices';
import { ScoreSdeError } from '../errors';
import { show } from '../options';
import { native } from '../native/addon';
import { deviceIndex } from '../native/memory';

/** A CUDA device's index, from its name; 'cuda' where undefined. ERR_CONFIG, ERR_CUDA_UNAVAILABLE. */
export function cudaIndex(device: unknown = 'cuda'): number {
  const place = resolveDevice(device);
  if (place !== 'cpu') return deviceIndex(place);
  throw new ScoreSdeError('ERR_CONFIG', `device must be a CUDA device, got ${show(device)}`);
}

/** A stream option, checked. ERR_CONFIG. */
export function cudaStream(stream: unknown): bigint | undefined {
  if (stream === 0n) return 1n; // cudaStreamLegacy, whatever CUDA's functions are compiled to take 0 for
  if (stream === undefined || (typeof stream === 'bigint' && stream >= 0n && stream < 2n ** 64n)) return stream;
  throw new ScoreSdeError('ERR_CONFIG', `stream must be a cudaStream_t as a bigint, got ${show(stream)}`);
}

function assertStream(stream: unknown): void {
  if (cudaStream(stream) === undefined)
    throw new ScoreSdeError('ERR_CONFIG', 'stream must be a cudaStream_t as a bigint');
}

/**
 * This thread's stream on a device, a cudaStream_t. All work on this thread's tensors there is enqueued on it.
 * @param device 'cuda' (cuda:0) or 'cuda:N'
 * @throws ScoreSdeError ERR_CONFIG (no CUDA device), ERR_CUDA_UNAVAILABLE
 */
export function streamOf(device = 'cuda'): bigint {
  return native.deviceStream(cudaIndex(device));
}

/**
 * Later work on this thread's stream of the device begins after the present work of `stream`. The host does not wait.
 * @param stream A cudaStream_t
 * @param device 'cuda' (cuda:0) or 'cuda:N'
 * @throws ScoreSdeError ERR_CONFIG (no stream, no CUDA device), ERR_CUDA_UNAVAILABLE, ERR_CUDA, ERR_STATE (the legacy default stream while this thread's stream is captured)
 */
export function waitForStream(stream: bigint, device = 'cuda'): void {
  assertStream(stream);
  native.deviceWaitFor(cudaIndex(device), stream);
}

/**
 * Later work on `stream` begins after the present work of this thread's stream of the device. The host does not wait.
 * @param stream A cudaStream_t
 * @param device 'cuda' (cuda:0) or 'cuda:N'
 * @throws ScoreSdeError ERR_CONFIG (no stream, no CUDA device), ERR_CUDA_UNAVAILABLE, ERR_CUDA, ERR_STATE (the legacy default stream while this thread's stream is captured)
 */
export function signalStream(stream: bigint, device = 'cuda'): void {
  assertStream(stream);
  native.devicePrecede(cudaIndex(device), stream);
}

/**
 * Bytes of a device's memory: `used` by this thread's tensors, and `kept` free for new ones.
 * @param device 'cuda' (cuda:0) or 'cuda:N'
 * @throws ScoreSdeError ERR_CONFIG (no CUDA device), ERR_CUDA_UNAVAILABLE
 */
export function memoryUsage(device = 'cuda'): { used: number; kept: number } {
  return native.deviceUsage(cudaIndex(device));
}

/**
 * Returns to the device the memory that this thread keeps for new tensors. Waits for the device. While this thread's stream is
 * captured, the memory stays.
 * @param device 'cuda' (cuda:0) or 'cuda:N'
 * @throws ScoreSdeError ERR_CONFIG (no CUDA device), ERR_CUDA_UNAVAILABLE, ERR_CUDA
 */
export function emptyCache(device = 'cuda'): void {
  native.deviceTrim(cudaIndex(device));
}
