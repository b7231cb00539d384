import * as ort from 'onnxruntime-node';
import { Tensor, type ErrorCode } from '../../lib';

/** A value that no argument of dims [2, 3, 2, 2] may take, and how the error must put it beside the argument's name. */
export interface BadTensor {
  what: string;
  code: ErrorCode | ErrorCode[];
  says: RegExp;
  make: () => unknown;
}

export const goodDims = [2, 3, 2, 2];

const values = (count = 24) => Float32Array.from({ length: count }, (_, i) => i / 8);
const like = (data: unknown, dims: unknown = goodDims, more: object = {}) => ({ data, dims, ...more });
const disposed = <T extends { dispose(): void }>(tensor: T): T => {
  tensor.dispose();
  return tensor;
};

/** A view whose buffer now belongs to someone else. */
export function transferred<T extends ArrayBufferView>(view: T): T {
  structuredClone(view.buffer, { transfer: [view.buffer as ArrayBuffer] });
  return view;
}

type Resizable = ArrayBuffer & { resize(bytes: number): void };
const resizable = (bytes: number) =>
  new (ArrayBuffer as unknown as new (bytes: number, options: object) => Resizable)(bytes, { maxByteLength: bytes });

/** A tensor that lost half of its memory after it was made. */
function shrunk(): Tensor {
  const buffer = resizable(96);
  const tensor = new Tensor('float32', new Float32Array(buffer), goodDims);
  buffer.resize(48);
  return tensor;
}

function viewOfDisposed(): Tensor {
  const owner = Tensor.zeros(goodDims);
  const view = new Tensor('float32', owner.data, goodDims);
  owner.dispose();
  return view;
}

const throwing = (reason: unknown) => ({
  dims: goodDims,
  get data(): never {
    throw reason;
  },
});

/** No tensors at all, or such as are no states. */
const kinds: [string, RegExp, unknown][] = [
  ['null', /got null$/, null],
  ['a string', /got "x"$/, 'x'],
  ['a number', /got 5$/, 5],
  ['true', /got true$/, true],
  ['a bigint', /got 5n$/, 5n],
  ['a symbol', /got a symbol$/, Symbol('x')],
  ['a function', /got a function$/, () => 0],
  ['an empty object', /got an object$/, {}],
  ['a bare Float32Array', /got a Float32Array of 24$/, values()],
  ['an object without dims', /data and dims, got/, { data: values() }],
  ['an object without data', /data and dims, got/, { dims: goodDims }],
  ['float64', /must be float32, float16 or bfloat16, got float64$/, like(new Float64Array(24))],
  ['int32', /got int32$/, like(new Int32Array(24))],
  ['int64', /got int64$/, like(new BigInt64Array(24))],
  ['uint8', /got uint8$/, like(new Uint8Array(24))],
  ['a Tensor of int64', /got int64$/, new Tensor('int64', new BigInt64Array(24), goodDims)],
];

/** Tensors of another shape, or with gaps. */
const shapes: typeof kinds = [
  ['another size', /\[2, 3, 2, 3\]/, like(values(36), [2, 3, 2, 3])],
  ['another batch', /\[1, 3, 2, 2\]/, like(values(12), [1, 3, 2, 2])],
  ['another rank', /\[2, 3, 4\]/, like(values(), [2, 3, 4])],
  ['the elements in a row', /\[24\]/, like(values(), [24])],
  ['a scalar', /\[\]/, like(values(1), [])],
  ['channels last', /contiguous.*, got strides \[12, 1, 6, 3\]$/, like(values(), goodDims, { strides: [12, 1, 6, 3] })],
  ['gaps', /contiguous.*, got strides \[16, 4, 2, 1\]$/, like(values(), goodDims, { strides: [16, 4, 2, 1] })],
  ['strides of zero', /contiguous.*, got strides \[0, 4, 2, 1\]$/, like(values(), goodDims, { strides: [0, 4, 2, 1] })],
  ['too few strides', /contiguous.*, got strides \[12\]$/, like(values(), goodDims, { strides: [12] })],
  [
    'strides in a typed array',
    /contiguous.*, got strides/,
    like(values(), goodDims, { strides: Int32Array.of(12, 1, 6, 3) }),
  ],
];

/** Parts that make no tensor. */
const brokenKinds: typeof kinds = [
  ['data of null', /typed array such as Float32Array, got null$/, like(null)],
  ['data in a plain array', /typed array such as Float32Array, got an array of 24$/, like([...values()])],
  ['data in a DataView', /got a DataView$/, like(new DataView(new ArrayBuffer(96)))],
  ['data in an ArrayBuffer', /got an? ArrayBuffer$/, like(new ArrayBuffer(96))],
  ['data in an Int8Array', /got an? Int8Array of 24$/, like(new Int8Array(24))],
  [
    'a type that its data are not of',
    /needs a Uint16Array, got a Float32Array/,
    like(values(), goodDims, { type: 'float16' }),
  ],
  [
    'a wider type than its data',
    /needs a Float32Array, got a Uint16Array/,
    like(new Uint16Array(24), goodDims, { type: 'float32' }),
  ],
  ['an unknown type', /must be one of float32, .*, got "complex64"$/, like(values(), goodDims, { type: 'complex64' })],
  [
    "a type that is a property of every object's",
    /must be one of .*, got "constructor"$/,
    like(values(), goodDims, { type: 'constructor' }),
  ],
  ['a type of null', /must be one of .*, got null$/, like(values(), goodDims, { type: null })],
];

const brokenShapes: typeof kinds = [
  ['a negative size', /non-negative integers, got -3$/, like(values(), [2, -3, 2, 2])],
  ['two negative sizes', /non-negative integers, got -2$/, like(values(), [-2, -3, 2, 2])],
  ['a fractional size', /non-negative integers, got 1.5$/, like(values(), [2, 1.5, 2, 4])],
  ['a size of NaN', /non-negative integers, got NaN$/, like(values(), [2, NaN, 2, 2])],
  ['a size of Infinity', /non-negative integers, got Infinity$/, like(values(), [2, Infinity, 2, 2])],
  ['a size in a string', /non-negative integers, got "3"$/, like(values(), [2, '3', 2, 2])],
  ['a size of null', /non-negative integers, got null$/, like(values(), [2, null, 2, 2])],
  ['a size in a bigint', /non-negative integers, got 3n$/, like(values(), [2, 3n, 2, 2])],
  ['2^41 elements', /more elements than memory could hold/, like(values(), [2 ** 41])],
  ['2^80 elements', /more elements than memory could hold/, like(values(), [2 ** 40, 2 ** 40])],
  ['sizes whose product overflows', /dims/, like(values(0), [...new Array<number>(24).fill(2 ** 52), 0])],
  ['dims in a string', /array of sizes, got "2322"$/, like(values(), '2322')],
  ['dims of null', /array of sizes, got null$/, like(values(), null)],
  ['dims of undefined', /array of sizes, got undefined$/, { data: values(), dims: undefined }],
  ['dims of a number', /array of sizes, got 24$/, like(values(), 24)],
  ['an element too few', /24 elements, and 23 in data$/, like(values(23))],
  ['an element too many', /24 elements, and 25 in data$/, like(values(25))],
  ['no elements', /24 elements, and 0 in data$/, like(values(0))],
];

const gone: [string, ErrorCode[], RegExp, () => unknown][] = [
  ['a disposed tensor', ['ERR_DISPOSED'], /disposed/, () => disposed(Tensor.zeros(goodDims))],
  ['a disposed view', ['ERR_DISPOSED'], /disposed/, () => disposed(new Tensor('float32', values(), goodDims))],
  [
    'a disposed ort.Tensor',
    ['ERR_DISPOSED'],
    /disposed/,
    () => disposed(new ort.Tensor('float32', values(), goodDims)),
  ],
  [
    'data on another device',
    ['ERR_DISPOSED'],
    /no data on the CPU: it is on the GPU$/,
    () => throwing(new Error('it is on the GPU')),
  ],
  ['data that throw a string', ['ERR_DISPOSED'], /no data on the CPU: lost$/, () => throwing('lost')],
  ['data that throw null', ['ERR_DISPOSED'], /no data on the CPU/, () => throwing(null)],
  ['transferred data', ['ERR_SHAPE', 'ERR_DISPOSED'], /24 elements|transferred/, () => like(transferred(values()))],
  [
    'a Tensor of transferred data',
    ['ERR_SHAPE', 'ERR_DISPOSED'],
    /24 elements|transferred|memory|disposed/,
    () => {
      const data = values();
      const tensor = new Tensor('float32', data, goodDims);
      transferred(data);
      return tensor;
    },
  ],
  [
    'a view of a disposed tensor',
    ['ERR_SHAPE', 'ERR_DISPOSED'],
    /24 elements|transferred|memory|disposed/,
    viewOfDisposed,
  ],
  ['a tensor whose memory shrank', ['ERR_SHAPE', 'ERR_DISPOSED'], /24 elements|transferred|memory|disposed/, shrunk],
];

const rowsOf = (rows: typeof kinds, code: ErrorCode) =>
  rows.map(([what, says, value]): BadTensor => ({ what, code, says, make: () => value }));

/** Those whose data, dims and type the constructor refuses, too. */
export const brokenTensors = [...rowsOf(brokenKinds, 'ERR_DTYPE'), ...rowsOf(brokenShapes, 'ERR_SHAPE')];

export const badTensors = [
  ...rowsOf(kinds, 'ERR_DTYPE'),
  ...rowsOf(shapes, 'ERR_SHAPE'),
  ...brokenTensors,
  ...gone.map(([what, code, says, make]): BadTensor => ({ what, code, says, make })),
];
