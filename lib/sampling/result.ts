import { ScoreSdeError } from '../errors';
import type { Bytes } from '../platform';
import { pixelsOf } from '../image/pixels';
import { toPng, type PngOptions } from '../image/png';
import { assertOptions, show } from '../options';
import { Dtype } from '../native/abi';
import { KernelCall } from '../native/call';
import { bufferOf } from '../native/memory';
import { operand } from '../tensor/operand';
import { Tensor } from '../tensor/tensor';

/** What a run made. */
export class SamplingResult {
  /** The samples as the sampler gave them, [B, ...] float32, not clamped; where they lay. */
  readonly samples: Tensor<'float32'>;
  /** [B, ...] float32: the samples mapped from the run's dataRange to [0, 1] and clamped to it; where the samples lay. */
  readonly images: Tensor<'float32'>;
  /** The name by which the solver was asked for; of a run that went on, its own. */
  readonly solver: string;
  /** Network calls a sample. */
  readonly calls: number;
  /** Steps of the sampler. */
  readonly steps: number;
  /** The seed of the first sample; undefined where generators were given. */
  readonly seed: bigint | undefined;
  /** Where the samples lay. */
  readonly device: string;
  /** Wall time of the run in seconds. */
  readonly seconds: number;

  /** @internal */
  constructor(made: {
    samples: Tensor<'float32'>;
    images: Tensor<'float32'>;
    solver: string;
    calls: number;
    steps: number;
    seed: bigint | undefined;
    device: string;
    seconds: number;
  }) {
    this.samples = made.samples;
    this.images = made.images;
    this.solver = made.solver;
    this.calls = made.calls;
    this.steps = made.steps;
    this.seed = made.seed;
    this.device = made.device;
    this.seconds = made.seconds;
  }

  /**
   * The images in 8 bits, one after the other, rounded half to even.
   * @param options layout: 'hwc' (default), a pixel's channels side by side, as sharp takes them; 'chw', plane by plane
   * @returns B H W C bytes
   * @throws ScoreSdeError ERR_SHAPE (samples that are not [C, H, W]), ERR_CONFIG (layout), ERR_DISPOSED, ERR_MEMORY
   */
  async toUint8(options: { layout?: 'hwc' | 'chw' | undefined } = {}): Promise<Uint8Array> {
    assertOptions(options, ['layout']);
    const { layout = 'hwc' } = options;
    if (layout !== 'hwc' && layout !== 'chw')
      throw new ScoreSdeError('ERR_CONFIG', `layout must be 'hwc' or 'chw', got ${show(layout)}`);
    const { dims } = this.images;
    const [count, channels, height, width] = dims;
    if (dims.length !== 4)
      throw new ScoreSdeError('ERR_SHAPE', `images must be [batch, channels, height, width], got [${dims.join(', ')}]`);
    if (layout === 'hwc') return pixelsOf(this.images, 1);
    const planes = [count! * channels!, 1, height!, width!];
    return pixelsOf(new Tensor('float32', this.images.memory as never, planes), 1);
  }

  /** The images as one PNG: see {@link toPng}. */
  toPng(options?: PngOptions): Promise<Bytes> {
    return toPng(this.images, options);
  }
}

/** Samples of [low, high] as images of [0, 1], in memory of their own. */
export async function imagesOf(
  samples: Tensor<'float32'>,
  [low, high]: readonly [number, number],
): Promise<Tensor<'float32'>> {
  const images = Tensor.empty(samples.dims, { device: samples.device });
  const [input, output] = [operand(samples, 'samples').memory, operand(images, 'images').memory];
  const access = { reads: [bufferOf(input)], writes: [bufferOf(output)] };
  const [scale, shift] = [1 / (high - low), -low / (high - low)];
  const { float32 } = Dtype;
  await new KernelCall(
    'clamp',
    () => [samples.size, input, float32, output, float32, scale, shift] as never,
    access,
  ).runAsync();
  return images;
}
