import { PNG } from 'pngjs';
import { roundHalfEven } from './half';

/** NHWC values as NCHW. */
export function channelsFirst<A extends Float32Array | Uint8Array>(data: A, [n, h, w, c]: number[]): A {
  const out = data.slice() as A;
  for (let b = 0; b < n!; b++)
    for (let i = 0; i < h! * w!; i++)
      for (let k = 0; k < c!; k++) out[(b * c! + k) * h! * w! + i] = data[(b * h! * w! + i) * c! + k]!;
  return out;
}

/** The 8-bit images in a grid without gaps, filled row by row, as NCHW. */
export function fromGrid(file: Buffer, [n, c, h, w]: number[]): Uint8Array {
  const png = PNG.sync.read(file);
  const columns = png.width / w!;
  if (!Number.isInteger(columns) || png.height !== Math.ceil(n! / columns) * h!) {
    throw new Error(`a grid of ${png.width}x${png.height} does not hold ${n} images of ${w}x${h}`);
  }
  const out = new Uint8Array(n! * c! * h! * w!);
  for (let i = 0; i < out.length; i++) {
    const x = (i % w!) + w! * (Math.floor(i / (c! * h! * w!)) % columns);
    const y = (Math.floor(i / w!) % h!) + h! * Math.floor(Math.floor(i / (c! * h! * w!)) / columns);
    const channel = Math.floor(i / (h! * w!)) % c!;
    out[i] = png.data[(y * png.width + x) * 4 + channel]!;
  }
  return out;
}

/** uint8(round_half_even(value * 255)), the product in float32. */
export function toBytes(values: Float32Array): Uint8Array {
  return Uint8Array.from(values, (value) => roundHalfEven(Math.fround(value * 255)));
}

/**
 * Fails unless the bytes are those of the reference values; where a value lies within `tolerance` of a rounding edge,
 * the byte on the other side of that edge will do. Returns how many needed that.
 */
export function sameBytes(actual: Uint8Array, reference: Float32Array, tolerance: number): number {
  if (actual.length !== reference.length) throw new Error(`${actual.length} bytes, expected ${reference.length}`);
  const expected = toBytes(reference);
  let onEdge = 0;
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] === expected[i]) continue;
    const scaled = reference[i]! * 255;
    const toEdge = Math.abs(scaled - (Math.floor(scaled) + 0.5));
    if (Math.abs(actual[i]! - expected[i]!) > 1 || toEdge > tolerance * 255) {
      throw new Error(`byte ${i} is ${actual[i]}, expected ${expected[i]} (the value is ${reference[i]})`);
    }
    onEdge++;
  }
  return onEdge;
}
