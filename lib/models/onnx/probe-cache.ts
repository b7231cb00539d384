import { isDeepStrictEqual } from 'node:util';
import { ScoreSdeError } from '../../errors';
import { readTextIfFile, writeWhole } from '../../files';
import { native } from '../../native/addon';
import { isPlainObject } from '../../options';
import type { Exactness } from './probe';

/** All that a probe's outcome depends on. */
export interface ProbeKey {
  /** sha256 of the network's file and its weights elsewhere. */
  readonly network: string;
  /** ONNX Runtime's version. */
  readonly library: string;
  /** The instruction set that the machine's processor has. */
  readonly processor: string;
  /** Threads of the session. */
  readonly threads: number;
  /** The session's other options. */
  readonly options: string;
  /** The dims of one sample. */
  readonly dims: readonly number[];
}

/** What a probe found, for all numbers of threads from the first to the second. */
export interface Probed extends Omit<ProbeKey, 'threads'> {
  readonly threads: readonly [from: number, to: number];
  readonly width: number;
  /** Whether single-threaded calls at once give the same bits. */
  readonly isDivided: boolean;
  readonly why: string;
  /** The kind of which a check had nothing to warn. */
  kind?: string;
}

const maxFile = 2 ** 20;

/** What was probed in this process. */
const found: Probed[] = [];

/** The key of a probe on this machine's processor. */
export function probeKeyOf(network: string, rest: Omit<ProbeKey, 'network' | 'processor'>): ProbeKey {
  return { ...rest, network, processor: native.instructionSet() };
}

/** What a probe of that key found, in this process or in what is known beside. */
export function probedBefore(key: ProbeKey, known: readonly Probed[]): Probed | undefined {
  const { threads, ...rest } = key;
  const fits = (entry: Probed) =>
    entry.threads[0] <= threads &&
    threads <= entry.threads[1] &&
    (Object.keys(rest) as (keyof typeof rest)[]).every((name) => String(entry[name]) === String(rest[name]));
  return [...found, ...known].find(fits);
}

/** Keeps what a probe found, if it found that the bits hold. */
export function keepProbed(key: ProbeKey, { holds, width, atOnce, why }: Exactness): Probed | undefined {
  if (!holds || width === 'any') return undefined;
  const { threads } = key;
  const entry: Probed = { ...key, threads: [threads, threads], width, isDivided: atOnce > 1, why };
  found.push(entry);
  return entry;
}

/** The outcomes in a file; none where there is no file. ERR_CONFIG (another file), ERR_IO. */
export async function readProbed(file: string): Promise<Probed[]> {
  const text = await readTextIfFile(file, maxFile);
  if (text === undefined) return [];
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (cause) {
    throw new ScoreSdeError('ERR_CONFIG', `${file}: not valid JSON: ${(cause as Error).message}`, { cause });
  }
  const isProbed = (entry: unknown): entry is Probed => {
    if (!isPlainObject(entry)) return false;
    const { network, threads, width, isDivided } = entry as Probed;
    return (
      typeof network === 'string' &&
      Array.isArray(threads) &&
      Number.isInteger(width) &&
      width > 0 &&
      typeof isDivided === 'boolean'
    );
  };
  if (!Array.isArray(list) || !list.every(isProbed))
    throw new ScoreSdeError('ERR_CONFIG', `${file}: expected what probes of networks found`);
  return list;
}

/** Adds an outcome to a file, unless it is there. ERR_IO. */
export async function addProbed(file: string, entry: Probed): Promise<void> {
  const kept = await readProbed(file).catch((): Probed[] => []);
  if (kept.some((other) => isDeepStrictEqual(other, entry))) return;
  const others = kept.filter((other) => !isDeepStrictEqual({ ...other, kind: entry.kind }, { ...entry }));
  await writeWhole(file, `${JSON.stringify([...others, entry], null, 2)}\n`);
}
