import { Generator, Tensor, type TensorLike } from '../../lib';
import { goodDims } from './bad-tensors';

/** Memory of which tensors of goodDims can be taken that overlap. */
export class Block {
  private readonly whole: Tensor<'float32'>;

  constructor(private readonly device: string) {
    this.whole = new Generator(5).randn([64], { device }) as Tensor<'float32'>;
  }

  /** The tensor that begins at a float32 element: on the host an object with data and dims, on a device a Tensor. */
  at(offset: number, type: 'float32' | 'float16' | 'bfloat16' = 'float32'): TensorLike {
    if (this.device !== 'cpu') {
      const [address] = this.whole.cudaArrayInterface.data;
      const at = address + 4n * BigInt(offset);
      return Tensor.fromPointer(at, goodDims, { type, device: this.device, owner: this.whole });
    }
    const { data } = this.whole;
    if (type === 'float32') return { data: data.subarray(offset, offset + 24), dims: goodDims };
    return { data: new Uint16Array(data.buffer, data.byteOffset + 4 * offset, 24), dims: goodDims, type };
  }
}
