import { Buffer } from 'node:buffer';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { turn } from '../../clock';
import { AbortError, reasonOf, ScoreSdeError } from '../../errors';
import { isInside } from '../../files';
import { show } from '../../options';
import type { Signal } from '../../platform';
import { assertGoesOn } from '../../signals';

/** How far the reading of a network's files is, in bytes. */
export interface LoadProgress {
  /** Bytes that were read. */
  readonly loaded: number;
  /** Bytes of all of the network's files. */
  readonly total: number;
}

/** Where a network comes from. */
export interface NetworkSource {
  /** Its file; undefined where its bytes were given. */
  readonly path: string | undefined;
  readonly bytes: Uint8Array | undefined;
  /** How many bytes were given: of those that are transferred away none are left. */
  readonly size: number | undefined;
  /** Weights in place of the files beside it, by the files' names. */
  readonly external: ReadonlyMap<string, Uint8Array>;
}

/** ONNX's StringStringEntryProto with the key 'location', up to its value: field 1, a text of 8 bytes; field 2. */
const locationEntry = Buffer.concat([Buffer.from([0x0a, 8]), Buffer.from('location'), Buffer.from([0x12])]);

/** The names of the files that hold weights of a network beside it, as its tensors name them. */
export function externalNames(network: Uint8Array): string[] {
  const bytes = Buffer.from(network.buffer, network.byteOffset, network.byteLength);
  const names = new Set<string>();
  for (let at = bytes.indexOf(locationEntry); at >= 0; at = bytes.indexOf(locationEntry, at)) {
    at += locationEntry.length;
    // The length is a varint: seven bits a byte, the low ones first. Two bytes are enough for a file's name.
    const [low = 0, high = 0] = bytes.subarray(at, at + 2);
    const [length, start] = low < 0x80 ? [low, at + 1] : [(low & 0x7f) | (high << 7), at + 2];
    names.add(bytes.toString('utf8', start, start + length));
  }
  return [...names].sort();
}

/** The files that a network is read from, and what was given in their place. */
interface Part {
  readonly file: string | undefined;
  readonly name: string;
  readonly bytes: Uint8Array | undefined;
  readonly size: number;
}

/** A network that has its weights elsewhere is smaller than that. */
const mostWithout = 2 ** 26;
/** Bytes that are read or hashed between two turns of the event loop. */
const pieceBytes = 2 ** 20;

/** A network's weights, looked at as far as they are needed. */
export class Weights {
  #parts: Promise<readonly Part[]> | undefined;

  constructor(private readonly source: NetworkSource) {}

  /** Whether all of it has at most so many bytes. ERR_IO, ERR_DISPOSED. */
  async areAtMost(limit: number): Promise<boolean> {
    return (await this.#all()).reduce((sum, { size }) => sum + size, 0) <= limit;
  }

  /** sha256 of all of it. ERR_IO, ERR_DISPOSED, ERR_ABORTED. */
  async hash(signal: Signal | undefined): Promise<string> {
    const hash = createHash('sha256');
    for (const part of await this.#all()) {
      if (part.name !== '') hash.update(`\0${part.name}\0`);
      for await (const piece of this.#pieces(part, signal)) hash.update(piece);
    }
    return hash.digest('hex');
  }

  /**
   * Reads the files once, so that the system has them in memory when ONNX Runtime asks, and tells how far it is. ERR_IO,
   * ERR_DISPOSED, ERR_ABORTED.
   */
  async readAhead(tell: (progress: LoadProgress) => void, signal: Signal | undefined): Promise<void> {
    const parts = await this.#all();
    const total = parts.reduce((sum, { size }) => sum + size, 0);
    let loaded = parts.reduce((sum, { size, bytes }) => sum + (bytes ? size : 0), 0);
    tell({ loaded, total });
    for (const part of parts) {
      if (part.bytes !== undefined) continue;
      for await (const { length } of this.#pieces(part, signal)) tell({ loaded: (loaded += length), total });
    }
  }

  /** ERR_CONFIG where bytes were given for a file that the network does not name. */
  async assertNamed(): Promise<void> {
    const { external } = this.source;
    if (external.size === 0) return;
    const named = (await this.#all()).map(({ name }) => name).filter(Boolean);
    for (const name of external.keys())
      if (!named.includes(name))
        throw new ScoreSdeError(
          'ERR_CONFIG',
          `externalData[${show(name)}]: the network has no weights in a file of that name, but in ${named.join(', ') || 'none'}`,
        );
  }

  #all(): Promise<readonly Part[]> {
    return (this.#parts ??= partsOf(this.source));
  }

  async *#pieces(part: Part, signal: Signal | undefined): AsyncGenerator<Uint8Array, void, void> {
    const { file, bytes, size } = part;
    try {
      for (let at = 0; bytes !== undefined && at < size; at += pieceBytes) {
        assertGoesOn(signal);
        yield Buffer.from(bytes.buffer, bytes.byteOffset + at, Math.min(pieceBytes, size - at));
        await turn();
      }
      if (bytes !== undefined || size === 0) return;
      // Not beyond the size that was found: a file may grow.
      for await (const piece of createReadStream(file!, { end: size - 1, highWaterMark: pieceBytes })) {
        assertGoesOn(signal);
        yield piece as Buffer;
      }
    } catch (cause) {
      throw unreadable(part, cause);
    }
  }
}

/** A network's parts: itself and its weights elsewhere. */
async function partsOf({ path, bytes, external, ...given }: NetworkSource): Promise<Part[]> {
  const itself: Part = { file: path, name: '', bytes, size: given.size ?? (await sizeOf(path!)) ?? 0 };
  try {
    const content = bytes ?? (itself.size <= mostWithout ? await readFile(path!) : undefined);
    const parts: Part[] = [{ ...itself, bytes: content }];
    for (const name of content ? externalNames(content) : []) {
      const given = external.get(name);
      const file = given === undefined && path !== undefined ? besides(path, name) : undefined;
      const size = given?.length ?? (file === undefined ? undefined : await sizeOf(file));
      if (size !== undefined) parts.push({ file, name, bytes: given, size });
    }
    return parts;
  } catch (cause) {
    throw unreadable(itself, cause);
  }
}

/** The path of a file in the folder of another; undefined of other places, which ONNX Runtime refuses, too. */
function besides(path: string, name: string): string | undefined {
  const file = join(dirname(path), name);
  return !isAbsolute(name) && isInside(dirname(path), file) ? file : undefined;
}

/** The size of a regular file; undefined of anything else. */
async function sizeOf(file: string): Promise<number | undefined> {
  const found = await stat(file).catch(() => undefined);
  return found?.isFile() ? found.size : undefined;
}

function unreadable({ file, bytes }: Part, cause: unknown): unknown {
  if (cause instanceof ScoreSdeError || cause instanceof AbortError) return cause;
  return file === undefined || bytes !== undefined
    ? new ScoreSdeError('ERR_DISPOSED', `the network's bytes cannot be read: ${reasonOf(cause)}`, { cause })
    : new ScoreSdeError('ERR_IO', `cannot read ${file}: ${reasonOf(cause)}`, { cause });
}
