import { ScoreSdeError } from '../errors';
import { KernelCall } from '../native/call';
import { bufferOf, DeviceMemory } from '../native/memory';
import { operand } from '../tensor/operand';
import { Tensor, type TensorLike } from '../tensor/tensor';

/**
 * Images [B, C, H, W] of [0, 1] in 8 bits, rounded half to even, in a grid of so many columns whose pixels have their
 * channels side by side: [ceil(B / columns) H, columns W, C]. In one column it is one image after the other.
 */
export async function pixelsOf(images: TensorLike, columns: number): Promise<Uint8Array<ArrayBuffer>> {
  const { memory, type, dims } = operand(images, 'images');
  const [count = 0, channels = 0, height = 0, width = 0] = dims;
  const data = allocateBytes(Math.ceil(count / columns) * height * columns * width * channels);
  const draw = (out: Uint8Array | DeviceMemory) =>
    new KernelCall('imageGrid', () => [count, channels, height, width, columns, memory, type, out], {
      reads: [bufferOf(memory)],
      writes: [bufferOf(out)],
    }).runAsync();
  if (!(memory instanceof DeviceMemory)) {
    await draw(data);
    return data;
  }
  // The device rounds the values: its bytes are a quarter of the floats to copy.
  using grid = Tensor.zeros([data.length], { type: 'uint8', device: memory.device });
  await draw(grid.memory);
  data.set(await grid.getData());
  return data;
}

/** Memory of JavaScript's own, which can be transferred to another thread. ERR_MEMORY. */
function allocateBytes(count: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(count);
  } catch (cause) {
    throw new ScoreSdeError('ERR_MEMORY', `no memory for a picture of ${count} bytes`, { cause });
  }
}
