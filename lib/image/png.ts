import { Buffer } from 'node:buffer';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { reasonOf, ScoreSdeError } from '../errors';
import type { Bytes } from '../platform';
import { assertOptions, show } from '../options';
import { operand } from '../tensor/operand';
import type { TensorLike } from '../tensor/tensor';
import { pixelsOf } from './pixels';

export interface PngOptions {
  /** Images in a row: an integer from 1 to 65535. Default: the square root of the number of images, rounded up. */
  columns?: number | undefined;
}

/** PNG's colour types by number of channels. */
const colorTypes: Record<number, { colorType: number; hasAlpha: boolean }> = {
  1: { colorType: 0, hasAlpha: false },
  3: { colorType: 2, hasAlpha: false },
  4: { colorType: 6, hasAlpha: true },
};

const maxPixels = 2 ** 28;

/**
 * A batch of images as one PNG: a grid without gaps, filled row by row, black where there is no image. Values are clamped to
 * [0, 1] and rounded to 8 bits, half to even, as diffusers does; NaN is black.
 * @param images [B, C, H, W], with C of 1 (grey), 3 (RGB) or 4 (RGBA)
 * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_DISPOSED, ERR_CONFIG, ERR_RANGE (columns, or more than 2^28 pixels), ERR_MEMORY, ERR_IO, ERR_CUDA
 */
export async function toPng(images: TensorLike, options: PngOptions = {}): Promise<Bytes> {
  assertOptions(options, ['columns']);
  const { columns } = options;
  const { memory, dims } = operand(images, 'images');
  const [count = 0, channels = 0, height = 0, width = 0] = dims;
  const color = colorTypes[channels];
  if (dims.length !== 4 || color === undefined || memory.length === 0)
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `images must have dims [batch, 1, 3 or 4 channels, height, width], none of them 0, got [${dims.join(', ')}]`,
    );
  const across = columns === undefined ? Math.ceil(Math.sqrt(count)) : columns;
  if (!Number.isInteger(across) || across < 1 || across > 65535)
    throw new ScoreSdeError('ERR_RANGE', `columns must be an integer from 1 to 65535, got ${show(columns)}`);
  const size = { width: across * width, height: Math.ceil(count / across) * height };
  if (size.width * size.height > maxPixels)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `images make a picture of ${size.width}x${size.height} pixels, more than 2^28`,
    );
  const data = await pixelsOf(images, across);
  return encode({ ...size, ...color, data });
}

interface Picture {
  width: number;
  height: number;
  colorType: number;
  hasAlpha: boolean;
  data: Uint8Array<ArrayBuffer>;
}

interface Reply {
  id: number;
  file?: Uint8Array<ArrayBuffer> | undefined;
  error?: Error | undefined;
}

/** Compression takes milliseconds to seconds, so a thread does it. The first picture starts the thread; idle, it keeps no process alive. */
let worker: Worker | undefined;
const waiting = new Map<number, { resolve: (file: Bytes) => void; reject: (error: Error) => void }>();
let pictures = 0;

function encode(picture: Picture): Promise<Bytes> {
  const at = (worker ??= start());
  const id = pictures++;
  return new Promise((resolve, reject) => {
    at.postMessage({ id, ...picture }, [picture.data.buffer]);
    at.ref();
    waiting.set(id, { resolve, reject });
  });
}

function start(): Worker {
  const started = new Worker(join(__dirname, 'encoder.js'), { name: 'score-sde png', execArgv: [] });
  started.on('message', ({ id, file, error }: Reply) => {
    const { resolve, reject } = waiting.get(id)!;
    waiting.delete(id);
    if (waiting.size === 0) started.unref();
    if (file) resolve(Buffer.from(file.buffer, file.byteOffset, file.byteLength));
    else reject(failure(error));
  });
  let cause: unknown;
  started.on('error', (error) => (cause = error));
  started.on('exit', (code) => {
    worker = undefined;
    for (const { reject } of waiting.values()) reject(failure(cause ?? `its thread ended with code ${code}`));
    waiting.clear();
  });
  return started;
}

function failure(cause: unknown): ScoreSdeError {
  return new ScoreSdeError('ERR_IO', `cannot encode the picture: ${reasonOf(cause)}`, { cause });
}
