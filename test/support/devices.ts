import { devices as found, Tensor, type TensorLike, type TensorType } from '../../lib';

/** The CUDA device that the tests run on, where there is one, real or emulated. */
export const cudaDevices = found()
  .filter(({ device, available }) => device.startsWith('cuda') && available)
  .map(({ device }) => device)
  .slice(0, 1);

/** Whether that is the emulator of test/emulator, which fails when it is told to. */
export const isEmulated = found().some(({ name }) => name === 'Emulated device');

/** The backends that the suites run on: TEST_DEVICES=cuda leaves out the CPU, which other runs have. */
export const devices = process.env.TEST_DEVICES === 'cuda' ? cudaDevices : ['cpu', ...cudaDevices];

/** The tensor on a device, as it is where it lies there. */
export function on<T extends TensorLike>(device: string, tensor: T): Promise<T> {
  if (device === 'cpu') return Promise.resolve(tensor);
  const { type, data, dims } = tensor;
  return new Tensor((type ?? 'float32') as 'float32', data as Float32Array, dims).to(
    device,
  ) as Promise<unknown> as Promise<T>;
}

/** The same elements in other dims, where they lie. */
export function reshaped<T extends TensorType>(tensor: Tensor<T>, dims: readonly number[]): Tensor<T> {
  return new Tensor(tensor.type, tensor.memory as never, dims);
}

/** The elements of a result, wherever it lies. */
export async function elementsOf(tensor: TensorLike): Promise<Float32Array> {
  return (tensor instanceof Tensor ? await tensor.getData() : tensor.data) as Float32Array;
}
