import { Buffer } from 'node:buffer';
import { ScoreSdeError, reasonOf } from '../errors';
import { isPlainObject } from '../options';

/** A tensor of a safetensors file: its element type in the format's words, shape and bytes. */
export interface Stored {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

export interface SafetensorsFile {
  readonly tensors: ReadonlyMap<string, Stored>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Bytes of an element, by the format's names of element types. */
const elementBytes: Record<string, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  U64: 8,
  I32: 4,
  U32: 4,
  I16: 2,
  U16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};
/** The longest header that Python's safetensors reads. */
const maxHeader = 100_000_000;

/**
 * A file in the format of Hugging Face's safetensors: the length of a JSON header, the header, the tensors' bytes.
 * @throws ScoreSdeError ERR_CONFIG where the header is longer than readers of the format take
 */
export function writeSafetensors({ tensors, metadata }: SafetensorsFile): Uint8Array {
  const header: [string, unknown][] = [['__metadata__', metadata]];
  // Wide elements come first, so that each tensor is aligned to its own.
  const sorted = [...tensors].sort(([, a], [, b]) => elementBytes[b.dtype]! - elementBytes[a.dtype]!);
  let end = 0;
  for (const [name, { dtype, shape, data }] of sorted)
    header.push([name, { dtype, shape, data_offsets: [end, (end += data.byteLength)] }]);
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  // Spaces bring the tensors to a multiple of eight bytes.
  const start = 8 + Math.ceil(json.length / 8) * 8;
  if (start - 8 > maxHeader)
    throw new ScoreSdeError('ERR_CONFIG', `a safetensors header has at most ${maxHeader} bytes, got ${start - 8}`);
  const file = Buffer.alloc(start + end, ' ');
  file.writeBigUInt64LE(BigInt(start - 8), 0);
  file.set(json, 8);
  let at = start;
  for (const [, { data }] of sorted) {
    file.set(data, at);
    at += data.byteLength;
  }
  return new Uint8Array(file.buffer, file.byteOffset, file.length);
}

/** @throws ScoreSdeError ERR_CONFIG where the bytes are no such file, or end too early */
export function readSafetensors(bytes: Uint8Array): SafetensorsFile {
  const fail = (reason: string): never => {
    throw new ScoreSdeError('ERR_CONFIG', `the file must be a safetensors file: ${reason}`);
  };
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.length < 9) return fail(`it has ${file.length} bytes`);
  const length = Number(file.readBigUInt64LE(0));
  if (length > maxHeader || file[8] !== 0x7b) return fail('it does not begin as one');
  const start = 8 + length;
  if (start > file.length) return fail(`it is cut short, within its header of ${length} bytes`);
  let header: object;
  try {
    header = JSON.parse(file.toString('utf8', 8, start)) as object;
  } catch (cause) {
    return fail(`its header is no JSON (${reasonOf(cause)})`);
  }
  const { __metadata__: metadata = {}, ...entries } = header as { __metadata__?: unknown };
  if (!isPlainObject(metadata) || !Object.values(metadata).every((value) => typeof value === 'string'))
    return fail('its metadata are no texts');
  const tensors = new Map<string, Stored>();
  let end = start;
  for (const [name, entry] of Object.entries(entries)) {
    const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
    if (typeof dtype !== 'string' || !Object.hasOwn(elementBytes, dtype) || !isCounts(shape) || !isCounts(offsets))
      return fail(`its tensor ${name} is not described as one`);
    const [from = 0, to = 0] = offsets;
    if (to - from !== shape.reduce((a, b) => a * b, elementBytes[dtype]!))
      return fail(`its tensor ${name} has another size`);
    if (start + to > file.length) return fail(`it is cut short, within its tensor ${name}`);
    end = Math.max(end, start + to);
    tensors.set(name, { dtype, shape, data: Uint8Array.prototype.slice.call(file, start + from, start + to) });
  }
  if (end !== file.length) return fail(`it has ${file.length - end} bytes after its tensors`);
  return { tensors, metadata: metadata as Record<string, string> };
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}
