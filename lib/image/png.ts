import { Buffer } from 'node:buffer';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { later } from '../clock';
import { shared } from '../copies';
import { reasonOf, ScoreSdeError } from '../errors';
import { isInlined } from '../files';
import type { Bytes } from '../platform';
import { assertOptions, show } from '../options';
import { operand } from '../tensor/operand';
import type { TensorLike } from '../tensor/tensor';
import { encodePng } from './encode.js';
import { pixelsOf } from './pixels';

export interface PngOptions {
  /** Images in a row: an integer from 1 to 65535. Default: the square root of the number of images, rounded up. */
  columns?: number | undefined;
  /** How many pixels across and down each pixel of an image takes: an integer from 1 to 64. Default 1. */
  scale?: number | undefined;
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
 * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_DISPOSED, ERR_CONFIG, ERR_RANGE (columns, scale, or more than 2^28 pixels), ERR_MEMORY, ERR_IO, ERR_CUDA
 */
export async function toPng(images: TensorLike, options: PngOptions = {}): Promise<Bytes> {
  assertOptions(options, ['columns', 'scale']);
  const { dims } = operand(images, 'images');
  const { across, ...layout } = layoutOf(dims, options);
  const picture = { ...layout, data: await pixelsOf(images, across) };
  return encoder.encode(picture).catch((cause) => {
    throw new ScoreSdeError('ERR_IO', `cannot encode the picture: ${reasonOf(cause)}`, { cause });
  });
}

/** How images of `dims` lie in a picture, before it is enlarged. ERR_SHAPE, ERR_RANGE. */
export function layoutOf(dims: readonly number[], { columns, scale = 1 }: PngOptions) {
  const [count = 0, channels = 0, height = 0, width = 0] = dims;
  const color = colorTypes[channels];
  if (dims.length !== 4 || color === undefined || dims.includes(0))
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `images must have dims [batch, 1, 3 or 4 channels, height, width], none of them 0, got [${dims.join(', ')}]`,
    );
  const across = columns === undefined ? Math.ceil(Math.sqrt(count)) : columns;
  if (!Number.isInteger(across) || across < 1 || across > 65535)
    throw new ScoreSdeError('ERR_RANGE', `columns must be an integer from 1 to 65535, got ${show(columns)}`);
  if (!Number.isInteger(scale) || scale < 1 || scale > 64)
    throw new ScoreSdeError('ERR_RANGE', `scale must be an integer from 1 to 64, got ${show(scale)}`);
  const size = { width: across * width, height: Math.ceil(count / across) * height };
  if (size.width * size.height * scale ** 2 > maxPixels)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `images make a picture of ${size.width * scale}x${size.height * scale} pixels, more than 2^28`,
    );
  return { across, scale, ...size, ...color };
}

interface Picture {
  width: number;
  height: number;
  scale: number;
  colorType: number;
  hasAlpha: boolean;
  data: Uint8Array<ArrayBuffer>;
}

interface Reply {
  id: number;
  file?: Uint8Array<ArrayBuffer> | undefined;
  error?: Error | undefined;
}

/** How long the thread waits for another picture, in milliseconds. */
const patience = 1000;

/** One thread encodes for all copies of the package. It rejects with the cause, of which each copy makes its own error. */
const encoder = shared('png.1', () => ({ encode }));

/** Compression takes milliseconds to seconds, so a thread does it. It ends when it has had nothing to do for a while. */
let running: Promise<Worker | undefined> | undefined;
const waiting = new Map<number, { resolve: (file: Bytes) => void; reject: (error: Error) => void }>();
let pictures = 0;
let stopLater = () => {};

async function encode(picture: Picture): Promise<Bytes> {
  const id = pictures++;
  stopLater();
  const settled = new Promise<Bytes>((resolve, reject) => waiting.set(id, { resolve, reject }));
  const thread = await (running ??= start());
  if (thread === undefined) {
    waiting.delete(id);
    return encodePng(picture) as Bytes; // on this thread, which is busy meanwhile
  }
  thread.ref();
  thread.postMessage({ id, ...picture }, [picture.data.buffer]);
  return settled;
}

/** The thread, once it takes pictures; undefined where none can be had: the permission model may deny it, a bundle has no file of it. */
function start(): Promise<Worker | undefined> {
  if (isInlined()) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    let thread: Worker;
    try {
      thread = new Worker(join(__dirname, 'encoder.js'), { name: 'score-sde png', execArgv: [] });
    } catch {
      return resolve(undefined);
    }
    let isReady = false;
    let cause: unknown;
    thread.on('message', (message: 'ready' | Reply) => {
      if (message === 'ready') {
        isReady = true;
        return resolve(thread);
      }
      const { id, file, error } = message;
      const { resolve: made, reject } = waiting.get(id)!;
      waiting.delete(id);
      if (waiting.size === 0) rest(thread);
      if (file) made(Buffer.from(file.buffer, file.byteOffset, file.byteLength));
      else reject(error!);
    });
    thread.on('error', (error) => (cause = error));
    thread.on('exit', (code) => {
      running = undefined;
      // One that never began took no picture.
      if (!isReady) return resolve(undefined);
      for (const { reject } of waiting.values())
        reject((cause as Error | undefined) ?? new Error(`its thread ended with code ${code}`));
      waiting.clear();
    });
  });
}

/** Idle, the thread keeps no process alive, and does not stay. */
function rest(thread: Worker): void {
  thread.unref();
  stopLater = later(patience, () => {
    running = undefined;
    thread.removeAllListeners('exit'); // by then another thread may be at work
    void thread.terminate();
  });
}
