import { ScoreSdeError } from '../../errors';
import { toPng } from '../../image/png';
import { dotsOf, glyph, widthOf } from './font';

/** Each dot of a character is a square of so many pixels. */
const scale = 2;
const gap = 8;
/** An image is enlarged by a whole number until it has so many pixels in its height. */
const leastHeight = 48;
const maxPixels = 2 ** 28;

export interface SheetOptions {
  /** The dims of an image, [C, H, W]. */
  readonly sampleShape: readonly number[];
  /** Images of a cell. */
  readonly count: number;
  /** Labels of the rows and of the columns. */
  readonly rows: readonly string[];
  readonly columns: readonly string[];
}

/** Cells of images in rows and columns, black labels on white. */
export class Sheet {
  readonly #channels: number;
  readonly #size: { height: number; width: number };
  readonly #zoom: number;
  /** Images in a row of a cell. */
  readonly #across: number;
  readonly #cell: { height: number; width: number };
  readonly #left: number;
  readonly #top = gap + glyph.height * scale + gap;
  readonly #picture: { height: number; width: number };
  readonly #planes: Float32Array;

  /** @throws ScoreSdeError ERR_RANGE: more than 2^28 pixels */
  constructor({ sampleShape, count, rows, columns }: SheetOptions) {
    const [channels, height, width] = sampleShape as [number, number, number];
    this.#channels = channels;
    this.#size = { height, width };
    this.#zoom = Math.max(1, Math.ceil(leastHeight / height));
    this.#across = acrossOf(count);
    const textWidth = Math.max(...columns.map((text) => widthOf(text, scale)));
    this.#cell = {
      height: Math.max((count / this.#across) * height * this.#zoom, glyph.height * scale),
      width: Math.max(this.#across * width * this.#zoom, textWidth),
    };
    this.#left = gap + Math.max(...rows.map((text) => widthOf(text, scale))) + gap;
    this.#picture = {
      height: this.#top + rows.length * (this.#cell.height + gap),
      width: this.#left + columns.length * (this.#cell.width + gap),
    };
    const pixels = this.#picture.height * this.#picture.width;
    if (pixels > maxPixels)
      throw new ScoreSdeError(
        'ERR_RANGE',
        `the picture has ${this.#picture.width}x${this.#picture.height} pixels, more than 2^28: take fewer solvers, calls or images`,
      );
    this.#planes = new Float32Array(channels * pixels).fill(1);
    columns.forEach((text, i) => this.#write(text, this.#leftOf(i), gap));
    const middle = (this.#cell.height - glyph.height * scale) >> 1;
    rows.forEach((text, i) => this.#write(text, gap, this.#topOf(i) + middle));
  }

  /** Puts the images of a cell, [count, C, H, W] of [0, 1], in their place. */
  put(row: number, column: number, images: ArrayLike<number>): void {
    const { height, width } = this.#size;
    const pixels = height * width;
    const zoom = this.#zoom;
    for (let k = 0; k * pixels * this.#channels < images.length; k++) {
      const left = this.#leftOf(column) + (k % this.#across) * width * zoom;
      const top = this.#topOf(row) + Math.floor(k / this.#across) * height * zoom;
      for (let channel = 0; channel < this.#channels; channel++)
        for (let at = 0; at < pixels; at++) {
          const value = images[(k * this.#channels + channel) * pixels + at]!;
          this.#square(channel, left + (at % width) * zoom, top + Math.floor(at / width) * zoom, zoom, value);
        }
    }
  }

  toPng(): Promise<Buffer> {
    const { height, width } = this.#picture;
    return toPng({ data: this.#planes, dims: [1, this.#channels, height, width] });
  }

  #leftOf(column: number): number {
    return this.#left + column * (this.#cell.width + gap);
  }

  #topOf(row: number): number {
    return this.#top + row * (this.#cell.height + gap);
  }

  /** Text is black; a fourth channel is opacity, which stays 1. */
  #write(text: string, left: number, top: number): void {
    for (const [x, y] of dotsOf(text))
      for (let channel = 0; channel < Math.min(3, this.#channels); channel++)
        this.#square(channel, left + x * scale, top + y * scale, scale, 0);
  }

  #square(channel: number, left: number, top: number, size: number, value: number): void {
    const { height, width } = this.#picture;
    for (let y = top; y < top + size; y++) {
      const at = (channel * height + y) * width + left;
      this.#planes.fill(value, at, at + size);
    }
  }
}

/** How many of a cell's images lie side by side: the cell has no gap and is no higher than wide. */
function acrossOf(count: number): number {
  let across = Math.ceil(Math.sqrt(count));
  while (count % across !== 0) across++;
  return across;
}
