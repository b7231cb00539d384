import { Buffer } from 'node:buffer';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { reasonOf, ScoreSdeError } from '../../errors';
import { assertGoesOn } from '../../signals';

/** How far the reading of a network's files is, in bytes. */
export interface LoadProgress {
  readonly loaded: number;
  readonly total: number;
}

/** Where a network comes from. */
export interface NetworkSource {
  /** Its file; undefined where its bytes were given. */
  readonly path: string | undefined;
  readonly bytes: Uint8Array | undefined;
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
    // The length of a text is a varint; names of more than two of its bytes' worth are no file names.
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

/** A network's parts: itself and its weights elsewhere. Names of files that are not there are left to ONNX Runtime to refuse. */
async function partsOf({ path, bytes, external }: NetworkSource): Promise<Part[]> {
  const whole = bytes?.length ?? (await sizeOf(path!)) ?? 0;
  const itself = bytes ?? (whole <= mostWithout ? await readFile(path!) : undefined);
  const parts: Part[] = [{ file: path, name: '', bytes: itself, size: whole }];
  for (const name of itself ? externalNames(itself) : []) {
    const given = external.get(name);
    const file = given === undefined && path !== undefined ? join(dirname(path), name) : undefined;
    const size = given?.length ?? (file === undefined ? undefined : await sizeOf(file));
    if (size !== undefined) parts.push({ file, name, bytes: given, size });
  }
  return parts;
}

async function sizeOf(file: string): Promise<number | undefined> {
  return (await stat(file).catch(() => undefined))?.size;
}

/** A network's weights, looked at as far as they are needed. */
export class Weights {
  constructor(private readonly source: NetworkSource) {}

  /** Whether all of it has at most so many bytes. */
  async areAtMost(limit: number): Promise<boolean> {
    return (await partsOf(this.source)).reduce((sum, part) => sum + part.size, 0) <= limit;
  }

  /** sha256 of all of it. */
  async hash(): Promise<string> {
    const hash = createHash('sha256');
    for (const { name, bytes, file } of await partsOf(this.source)) {
      if (name !== '') hash.update(`\0${name}\0`);
      if (bytes !== undefined) hash.update(bytes);
      else for await (const piece of createReadStream(file!)) hash.update(piece as Buffer);
    }
    return hash.digest('hex');
  }

  /**
   * Reads the files once, so that the system has them in memory when ONNX Runtime asks, and tells how far it is. ERR_IO,
   * ERR_ABORTED.
   */
  async readAhead(tell: (progress: LoadProgress) => void, signal: AbortSignal | undefined): Promise<void> {
    const parts = await partsOf(this.source);
    const total = parts.reduce((sum, { size }) => sum + size, 0);
    let loaded = parts.reduce((sum, { size, bytes }) => sum + (bytes ? size : 0), 0);
    tell({ loaded, total });
    const piece = Buffer.allocUnsafe(2 ** 23);
    for (const { file, bytes } of parts) {
      if (bytes !== undefined) continue;
      const handle = await open(file!).catch((cause: unknown) => {
        throw new ScoreSdeError('ERR_IO', `cannot read ${file}: ${reasonOf(cause)}`, { cause });
      });
      try {
        for (;;) {
          assertGoesOn(signal);
          const { bytesRead } = await handle.read(piece, 0, piece.length);
          if (bytesRead === 0) break;
          tell({ loaded: (loaded += bytesRead), total });
        }
      } finally {
        await handle.close();
      }
    }
  }
}
