import { execFileSync } from 'node:child_process';
import * as ort from 'onnxruntime-node';
import { PNG } from 'pngjs';
import { toPng, Tensor, type ErrorCode, type TensorLike } from '../lib';
import { bitEqual } from './support/golden';
import { decode, roundHalfEven, type HalfType } from './support/half';
import { fromGrid, toBytes } from './support/images';
import { root } from './support/paths';
import { runPlainly } from './support/plain';
import { rejection, sentence } from './support/refusals';

const f32 = Math.fround;
const tensor = (values: ArrayLike<number>, dims: number[]) => new Tensor('float32', Float32Array.from(values), dims);
const sizeOf = (dims: readonly number[]) => dims.reduce((a, b) => a * b);

/** Values from 0 to 1 of which no two neighbours are alike. */
const pattern = (dims: number[], start = 0) =>
  tensor(
    Array.from({ length: sizeOf(dims) }, (_, i) => ((start + 97 * i) % 256) / 255),
    dims,
  );
const bytesOf = (images: Tensor) => toBytes(images.data as Float32Array);

/** The bytes of one row of grey pixels. */
async function grey(values: ArrayLike<number> | TensorLike): Promise<number[]> {
  const images = 'dims' in values ? values : tensor(values, [1, 1, 1, values.length]);
  return [...fromGrid(await toPng(images), [...images.dims])];
}

describe('channels', () => {
  test.each([
    ['grey', 1, 0],
    ['RGB', 3, 2],
    ['RGBA', 4, 6],
  ])('%s', async (_, channels, colorType) => {
    const images = pattern([3, channels, 5, 7]);
    const file = await toPng(images);
    expect(Buffer.isBuffer(file)).toBe(true);
    // Of the header: bits a channel, and the colour type.
    expect([...file.subarray(24, 26)]).toEqual([8, colorType]);
    const [n, c, h, w] = images.dims as [number, number, number, number];
    bitEqual(fromGrid(file, [n, c, h, w]), bytesOf(images));
  });

  test('what is transparent keeps its colour', async () => {
    const { data } = PNG.sync.read(await toPng(tensor([1, 0.2, 0, 0.4, 0, 1, 0, 1], [1, 4, 1, 2])));
    expect([...data]).toEqual([255, 0, 0, 0, 51, 102, 255, 255]);
  });
});

test.each([1, 3, 4])('with scale, each pixel of %d channels is repeated across and down', async (channels) => {
  const images = pattern([3, channels, 5, 7]);
  const small = PNG.sync.read(await toPng(images));
  for (const scale of [1, 2, 5]) {
    const file = await toPng(images, { scale });
    expect(file[25]).toBe((await toPng(images))[25]);
    const large = PNG.sync.read(file);
    expect([large.width, large.height]).toEqual([scale * small.width, scale * small.height]);
    const pixels = (png: PNG) => new Uint32Array(new Uint8Array(png.data).buffer);
    const repeated = Uint32Array.from({ length: large.width * large.height }, (_, i) => {
      const [x, y] = [i % large.width, Math.floor(i / large.width)];
      return pixels(small)[Math.floor(y / scale) * small.width + Math.floor(x / scale)]!;
    });
    expect(pixels(large)).toEqual(repeated);
  }
});

describe('the grid', () => {
  test.each([
    { count: 1, columns: undefined, width: 1, height: 1 },
    { count: 2, columns: undefined, width: 2, height: 1 },
    { count: 5, columns: undefined, width: 3, height: 2 },
    { count: 16, columns: undefined, width: 4, height: 4 },
    { count: 5, columns: 1, width: 1, height: 5 },
    { count: 5, columns: 2, width: 2, height: 3 },
    { count: 5, columns: 5, width: 5, height: 1 },
    { count: 5, columns: 8, width: 8, height: 1 },
  ])('$count images, columns $columns: $width by $height', async ({ count, columns, width, height }) => {
    const [h, w] = [3, 4];
    const images = pattern([count, 3, h, w], 13);
    const file = await toPng(images, { columns });
    const png = PNG.sync.read(file);
    expect([png.width, png.height]).toEqual([width * w, height * h]);
    bitEqual(fromGrid(file, [count, 3, h, w]), bytesOf(images));
    // Places without an image.
    for (let place = count; place < width * height; place++)
      for (let y = 0; y < h; y++)
        for (let x = 0; x < w; x++) {
          const at = 4 * ((Math.floor(place / width) * h + y) * png.width + (place % width) * w + x);
          expect([...png.data.subarray(at, at + 4)]).toEqual([0, 0, 0, 255]);
        }
  });
});

describe('to 8 bits', () => {
  test('half to even, as numpy', async () => {
    const halves = Array.from({ length: 255 }, (_, k) => f32((k + 0.5) / 255));
    const unit = 2 ** -25;
    const values = Float32Array.from(halves.flatMap((v) => [v - v * unit * 2, v, v + v * unit * 2]));
    // The product is rounded to float32: where it is a half, up or down depends on the whole.
    const ties = halves.filter((v) => f32(v * 255) % 1 === 0.5);
    expect(ties.length).toBeGreaterThan(100);
    const rounded = ties.map((v) => roundHalfEven(f32(v * 255)));
    expect(rounded.every((byte) => byte % 2 === 0)).toBe(true);
    expect(await grey(ties)).toEqual(rounded);
    expect(await grey(values)).toEqual([...toBytes(values)]);
  });

  test('every byte comes back', async () => {
    const bytes = Array.from({ length: 256 }, (_, i) => i);
    expect(await grey(bytes.map((byte) => byte / 255))).toEqual(bytes);
  });

  test('what lies outside is clamped, and NaN is black', async () => {
    const values = [-0, -1e-9, -1, -Infinity, 1, 1.0001, 300, Infinity, NaN, 0.5];
    expect(await grey(values)).toEqual([0, 0, 0, 0, 255, 255, 255, 255, 0, 128]);
  });

  test.each<HalfType>(['float16', 'bfloat16'])('%s: every value there is', async (type) => {
    const data = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i);
    const bytes = await grey({ type, data, dims: [1, 1, 256, 256] });
    const expected = decode(type, data).map((v) => (v > 0 ? roundHalfEven(f32(Math.min(v, 1) * 255)) : 0));
    bitEqual(bytes, expected);
    expect(new Set(bytes).size).toBeGreaterThan(128);
  });

  test.each<[string, (values: Float32Array) => TensorLike]>([
    ['a plain object', (data) => ({ data, dims: [1, 1, 1, data.length] })],
    ['an ort.Tensor', (data) => new ort.Tensor('float32', data, [1, 1, 1, data.length])],
    [
      'a part of larger memory',
      (data) => ({ data: Float32Array.of(9, ...data).subarray(1), dims: [1, 1, 1, data.length] }),
    ],
  ])('%s', async (_, make) => {
    expect(await grey(make(Float32Array.of(0.2, 0.4)))).toEqual([51, 102]);
  });
});

describe('many at once', () => {
  test('each gets its own', async () => {
    const sizes = [1, 40, 2, 64, 3, 8];
    const images = sizes.map((size, k) => pattern([2, 3, size, size], k));
    const files = await Promise.all(images.map((batch) => toPng(batch)));
    files.forEach((file, k) => bitEqual(fromGrid(file, [...images[k]!.dims]), bytesOf(images[k]!)));
  });

  test('a failure among them is its own alone', async () => {
    const images = pattern([1, 1, 4, 4]);
    const [good, bad, other] = await Promise.allSettled([toPng(images), toPng(images, { columns: 0 }), toPng(images)]);
    expect([good.status, bad.status, other.status]).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  });

  test('the event loop stays alive', async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await toPng(pattern([16, 3, 128, 128]));
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(4);
  });

  test('the process ends when they are done', () => {
    const script = `
      const { toPng, Tensor } = require('./lib');
      const batch = () => toPng(Tensor.zeros([4, 3, 8, 8]));
      Promise.all([batch(), batch()]).then(async () => console.log((await batch()).length));
    `;
    const { status, signal, stdout, stderr } = runPlainly(script);
    expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
    expect(Number(stdout)).toBeGreaterThan(50);
  });
});

describe('refused', () => {
  const disposed = Tensor.zeros([1, 1, 2, 2]);
  disposed.dispose();
  const shapes: [string, number[]][] = [
    ['no axis', []],
    ['an image without its batch', [3, 8, 8]],
    ['five axes', [1, 1, 3, 8, 8]],
    ['two channels', [1, 2, 8, 8]],
    ['five channels', [1, 5, 8, 8]],
    ['channels last', [1, 8, 8, 3]],
    ['an empty batch', [0, 3, 8, 8]],
    ['no channels', [1, 0, 8, 8]],
    ['no height', [1, 3, 0, 8]],
    ['no width', [1, 3, 8, 0]],
  ];
  const columns = [0, -1, 1.5, NaN, Infinity, 65536, '2', {}];
  const rows: [string, unknown, unknown, ErrorCode, RegExp][] = [
    ...shapes.map(([what, dims]): (typeof rows)[number] => [
      what,
      Tensor.zeros(dims),
      {},
      'ERR_SHAPE',
      new RegExp(`images must have dims \\[batch, 1, 3 or 4 channels.*got \\[${dims.join(', ')}\\]$`),
    ]),
    [
      'dims that data do not fill',
      { data: new Float32Array(3), dims: [1, 1, 2, 2] },
      {},
      'ERR_SHAPE',
      /4 elements, and 3/,
    ],
    ['a disposed tensor', disposed, {}, 'ERR_DISPOSED', /images is a disposed tensor/],
    [
      'bytes',
      new Tensor('uint8', new Uint8Array(4), [1, 1, 2, 2]),
      {},
      'ERR_DTYPE',
      /images must be float32.*got uint8$/,
    ],
    ['a bare array', new Float32Array(4), {}, 'ERR_DTYPE', /images must be a Tensor.*got a Float32Array of 4$/],
    ['undefined', undefined, {}, 'ERR_DTYPE', /images must be a Tensor.*got undefined$/],
    ['null', null, {}, 'ERR_DTYPE', /images must be a Tensor.*got null$/],
    ...columns.map((value): (typeof rows)[number] => [
      `columns ${String(value)}`,
      Tensor.zeros([2, 1, 2, 2]),
      { columns: value },
      'ERR_RANGE',
      /columns must be an integer from 1 to 65535, got /,
    ]),
    ...[0, -1, 1.5, NaN, 65, '2', null].map((value): (typeof rows)[number] => [
      `scale ${String(value)}`,
      Tensor.zeros([2, 1, 2, 2]),
      { scale: value },
      'ERR_RANGE',
      /scale must be an integer from 1 to 64, got /,
    ]),
    ['too large a scale', Tensor.zeros([1, 1, 512, 512]), { scale: 64 }, 'ERR_RANGE', /32768x32768 pixels/],
    ['too large a picture', Tensor.zeros([1, 1, 1, 8192]), { columns: 65535 }, 'ERR_RANGE', /536862720x1 pixels/],
    ['null for the options', Tensor.zeros([1, 1, 2, 2]), null, 'ERR_CONFIG', /options.*got null$/],
  ];
  test.each(rows)('%s', async (_, images, options, code, says) => {
    sentence(await rejection(() => toPng(images as Tensor, options as object)), code, says);
  });
});

describe('where no thread can be had', () => {
  const script = (before: string) => `
    const { toPng, Tensor } = require(${JSON.stringify(root)});
    ${before}
    toPng(Tensor.zeros([1, 1, 2, 2])).then((file) => console.log(file.subarray(1, 4).toString()));`;
  const node = (...args: string[]) => execFileSync(process.execPath, args, { encoding: 'utf8', stdio: 'pipe' }).trim();
  const flag = process.allowedNodeEnvironmentFlags.has('--permission') ? '--permission' : '--experimental-permission';

  test("Node's permission model denies it, and the picture is made on this thread", () => {
    expect(node(flag, '--allow-fs-read=*', '--allow-addons', '--no-warnings', '-e', script(''))).toBe('PNG');
  });

  test('the working folder is gone', () => {
    const gone = "const dir = require('fs').mkdtempSync(require('os').tmpdir() + '/'); process.chdir(dir);";
    expect(node('-e', script(`${gone} require('fs').rmdirSync(dir);`))).toBe('PNG');
  });

  test.each([
    ['addons', ['--allow-fs-read=*'], /addons are denied to this process; node --allow-addons/],
    ['the package', ['--allow-addons'], /reading .* is denied|ERR_ACCESS_DENIED/],
  ])('an addon that may not be loaded is told with what allows it: %s', (_, flags, says) => {
    expect(() => node(flag, ...flags, '--no-warnings', '-e', script(''))).toThrow(says);
  });
});

test('the thread ends when it has had nothing to do for a while', () => {
  const script = `
    const { toPng, Tensor } = require(${JSON.stringify(root)});
    (async () => {
      const make = async () => (await toPng(Tensor.zeros([1, 1, 2, 2]))).length > 0;
      const first = await make();
      const count = require('fs').readdirSync('/proc/self/task').length;
      await new Promise((resolve) => setTimeout(resolve, 2500));
      const later = require('fs').readdirSync('/proc/self/task').length;
      console.log(first, later < count, await make());
    })();`;
  expect(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }).trim()).toBe('true true true');
});
