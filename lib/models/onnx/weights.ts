import { Buffer } from 'node:buffer';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join, posix } from 'node:path';

import { turn } from '../../clock';
import { AbortError, exportingPage, reasonOf, ScoreSdeError } from '../../errors';
import { isInside, readHead, standIn } from '../../files';
import { show } from '../../options';
import type { Signal } from '../../platform';
import { assertGoesOn } from '../../signals';
import { leastPiece, readGraph, type Graph } from './graph';

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

/** The files that a network is read from, and what was given in their place. */
interface Part {
  readonly file: string | undefined;
  /** Its name, '' of the network itself. */
  readonly name: string;
  readonly bytes: Uint8Array | undefined;
  /** undefined where no such file is to be read. */
  readonly size: number | undefined;
  /** The bytes that the network's tensors take of it. */
  readonly least: number;
}
/** A part that is there. */
type Readable = Part & { readonly size: number };

/** Bytes that are read or hashed between two turns of the event loop. */
const pieceBytes = 2 ** 20;

/** Names of files that an error lists. */
const mostListed = 5;

/** A network's weights, looked at as far as they are needed. */
export class Weights {
  #graph: Promise<Graph> | undefined;
  #parts: Promise<readonly Part[]> | undefined;

  /** @param name What the network is called in messages */
  constructor(
    private readonly source: NetworkSource,
    private readonly name: string,
  ) {}

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

  /**
   * What ONNX Runtime would refuse in words of its own: ERR_MODEL where weights are not beside the network, are cut short, or
   * are another file; ERR_CONFIG for bytes of a file that it does not name, or too few, and for sizes that it does not leave
   * free. ERR_IO, ERR_DISPOSED.
   */
  async assertFit(sizes: readonly (readonly [name: string, size: number])[]): Promise<void> {
    const { isWhole, external, free } = await this.#read(sizes.length > 0);
    if (!isWhole) return; // ONNX Runtime tells what it is
    for (const [name] of sizes)
      if (!free.has(name))
        throw new ScoreSdeError(
          'ERR_CONFIG',
          `freeDimensionOverrides[${show(name)}]: the network leaves no size of that name free, but ${listed([...free])}`,
        );
    const named = new Set([...external.keys()].map((name) => posix.normalize(name)));
    const given = [...this.source.external.keys()];
    if (new Set(given.map((name) => posix.normalize(name))).size < given.length)
      throw new ScoreSdeError('ERR_CONFIG', `externalData must name each file once, got ${listed(given)}`);
    for (const name of given)
      if (!named.has(posix.normalize(name)))
        throw new ScoreSdeError(
          'ERR_CONFIG',
          `externalData[${show(name)}]: the network has no weights in a file of that name, but in ${listed([...named])}`,
        );
    const parts = (await this.#found()).slice(1);
    const isGiven = this.source.path === undefined || this.source.external.size > 0;
    const missing = parts.filter(({ size, file }) => size === undefined && (file !== undefined || isGiven));
    if (missing.length > 0)
      throw new ScoreSdeError(
        'ERR_MODEL',
        `${this.name} has weights in ${listed(missing.map(({ name }) => name))}, ` +
          (this.source.path === undefined
            ? `whose bytes externalData must give (${exportingPage})`
            : `not found in its folder: copy the files there, or give their bytes as externalData (${exportingPage})`),
      );
    for (const part of parts) await assertEnough(part);
  }

  /**
   * The weights elsewhere as ONNX Runtime is to be given them, by their names as the network spells them; none where it is to
   * read them itself. It takes all of them from memory, or none: those that were not given are read. ERR_IO, ERR_DISPOSED,
   * ERR_ABORTED.
   */
  async table(signal: Signal | undefined): Promise<ReadonlyMap<string, Uint8Array>> {
    if (this.source.external.size === 0) return new Map();
    const bytes = new Map<string, Uint8Array>();
    for (const part of (await this.#all()).slice(1))
      bytes.set(part.name, part.bytes ?? (await this.#readWhole(part, signal)));
    const spelled = [...(await this.#read()).external.keys()];
    return new Map(spelled.map((name) => [name, bytes.get(posix.normalize(name))!]));
  }

  /** @param wantsSizes Whether the names of free sizes are wanted, too, of the first call */
  #read(wantsSizes = false): Promise<Graph> {
    return (this.#graph ??= graphOf(this.source, wantsSizes));
  }

  #found(): Promise<readonly Part[]> {
    return (this.#parts ??= this.#read().then(({ external }) => partsOf(this.source, external)));
  }

  /** The parts that are there. */
  async #all(): Promise<Readable[]> {
    return (await this.#found()).filter((part): part is Readable => part.size !== undefined);
  }

  async #readWhole(part: Readable, signal: Signal | undefined): Promise<Uint8Array> {
    const whole = new Uint8Array(part.size);
    let at = 0;
    for await (const piece of this.#pieces(part, signal)) {
      whole.set(piece, at);
      at += piece.length;
    }
    return whole;
  }

  async *#pieces(part: Readable, signal: Signal | undefined): AsyncGenerator<Uint8Array, void, void> {
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

/** A file of at most so many bytes is searched for names of files before it is read as a graph. */
const mostSearched = 2 ** 22;

/** What a network's file says. ERR_IO, ERR_DISPOSED. */
async function graphOf({ path, bytes, size, external }: NetworkSource, wantsSizes: boolean): Promise<Graph> {
  try {
    const total = size ?? (await stat(path!)).size;
    if (!wantsSizes && external.size === 0 && total <= mostSearched) {
      const content = bytes ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) : await readFile(path!);
      // The key of a name in ONNX. Most networks have none, and need no further look.
      if (!content.includes('location')) return { isWhole: false, external: new Map(), free: new Set() };
    }
    if (bytes !== undefined) {
      const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      return await readGraph(total, (at) => view.subarray(at));
    }
    const file = await open(path!, 'r');
    try {
      const buffer = Buffer.alloc(16 * leastPiece);
      return await readGraph(total, async (at) =>
        buffer.subarray(0, (await file.read(buffer, 0, buffer.length, at)).bytesRead),
      );
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw unreadable({ file: path, bytes }, cause);
  }
}

/** A network's parts: itself, and its weights elsewhere. */
async function partsOf(source: NetworkSource, external: Graph['external']): Promise<Part[]> {
  const { path, bytes } = source;
  const size = source.size ?? (await sizeOf(path!));
  const parts: Part[] = [{ file: path, name: '', bytes, size, least: 0 }];
  const given = new Map([...source.external].map(([name, data]) => [posix.normalize(name), data]));
  const needed = new Map<string, number>();
  for (const [spelled, least] of external) {
    const name = posix.normalize(spelled);
    needed.set(name, Math.max(needed.get(name) ?? 0, least));
  }
  for (const [name, least] of needed) {
    const bytes = given.get(name);
    const file = bytes === undefined && path !== undefined ? besides(path, name) : undefined;
    const size = bytes?.length ?? (file === undefined ? undefined : await sizeOf(file));
    parts.push({ file, name, bytes, size, least });
  }
  return parts.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** ERR_MODEL, ERR_CONFIG where a part is not as long as the network's tensors need it. */
async function assertEnough({ file, name, bytes, size, least }: Part): Promise<void> {
  // Bytes that were transferred away are told where ONNX Runtime is to be given them.
  if (size === undefined || size >= least || bytes?.length === 0) return;
  const lacks = `must have ${least} bytes, the network's tensors say, got ${size}`;
  if (bytes !== undefined) throw new ScoreSdeError('ERR_CONFIG', `externalData[${show(name)}] ${lacks}`);
  throw new ScoreSdeError('ERR_MODEL', `${file}: ${standIn(await readHead(file!)) ?? lacks} (${exportingPage})`);
}

/** Names for an error's sentence. */
function listed(names: readonly string[]): string {
  const more = names.length > mostListed ? ` and ${names.length - mostListed} more` : '';
  return names.length === 0 ? 'none' : names.slice(0, mostListed).map(show).join(', ') + more;
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

function unreadable({ file, bytes }: Pick<Part, 'file' | 'bytes'>, cause: unknown): unknown {
  if (cause instanceof ScoreSdeError || cause instanceof AbortError) return cause;
  return file === undefined || bytes !== undefined
    ? new ScoreSdeError('ERR_DISPOSED', `the network's bytes cannot be read: ${reasonOf(cause)}`, { cause })
    : new ScoreSdeError('ERR_IO', `cannot read ${file}: ${reasonOf(cause)}`, { cause });
}
