import { shared } from '../copies';
import { ScoreSdeError } from '../errors';
import { type Order } from './abi';
import { addon, native } from './addon';

/** The memory that an operation reads and writes, by the buffers it lies in (see bufferOf in ./memory). */
export interface Access {
  reads: object[];
  writes: object[];
}

/** Work under way. */
interface Work {
  /** Of its end, good or bad. */
  done: Promise<void>;
  /** Its number, where the addon has it: then other calls of that addon can come after it. */
  call: number | undefined;
  addon: object;
}

interface Pending {
  readers: Set<Work>;
  writer?: Work | undefined;
}

/** All copies of the package in the process work on the same memory. */
const state = shared('order.1', () => ({ pending: new WeakMap<object, Pending>(), inFlight: 0 }));
const { pending } = state;

/** What must end before `access` may begin. */
function blockers({ reads, writes }: Access): Work[] {
  const found = new Set<Work>();
  for (const buffer of reads) {
    const writer = pending.get(buffer)?.writer;
    if (writer) found.add(writer);
  }
  for (const buffer of writes) {
    const entry = pending.get(buffer);
    if (entry?.writer) found.add(entry.writer);
    entry?.readers.forEach((reader) => found.add(reader));
  }
  return [...found];
}

function register(access: Access, work: Work): void {
  const entryOf = (buffer: object): Pending => {
    let entry = pending.get(buffer);
    if (!entry) pending.set(buffer, (entry = { readers: new Set() }));
    return entry;
  };
  for (const buffer of access.reads) entryOf(buffer).readers.add(work);
  for (const buffer of access.writes) {
    const entry = entryOf(buffer);
    entry.writer = work;
    entry.readers.clear(); // they end before it begins
  }
}

function release(access: Access, work: Work): void {
  for (const buffer of new Set([...access.reads, ...access.writes])) {
    const entry = pending.get(buffer);
    if (!entry) continue;
    entry.readers.delete(work);
    if (entry.writer === work) delete entry.writer;
    if (!entry.writer && entry.readers.size === 0) pending.delete(buffer);
  }
}

/** Calls that may wait or run at once: each holds its tensors, so a caller who never awaits would fill the memory. */
const maxInFlight = 2 ** 14;

/** Whether so many calls are under way that none should be made before it is needed. */
export function isCrowded(): boolean {
  return state.inFlight > maxInFlight / 8;
}

/** ERR_BUSY where too many asynchronous calls are under way. */
export function assertRoom(method: string): void {
  if (state.inFlight >= maxInFlight)
    throw new ScoreSdeError(
      'ERR_BUSY',
      `${method} must wait: ${state.inFlight} asynchronous calls are under way; await some first`,
    );
}

/** Counts work until it ends, among what is under way. */
export function counted<T>(work: Promise<T>): Promise<T> {
  state.inFlight++;
  const end = () => void state.inFlight--;
  work.then(end, end);
  return work;
}

/**
 * Runs asynchronous work in the order of the calls where memory is shared, at once where it is not. A call on the addon's
 * threads (`isCall`) that comes after such calls alone is handed over at once, and begins there, with no turn of the event
 * loop before it: the addon must find nothing to refuse in it.
 */
export function inOrder<T>(access: Access, start: (order: Order) => Promise<T>, isCall = false): Promise<T> {
  const before = blockers(access);
  const after = before.flatMap((work) => (work.addon === addon ? (work.call ?? []) : []));
  const call = isCall && after.length === before.length ? native.nextCall() : undefined;
  const waits = call === undefined && before.length > 0;
  const result = counted(
    waits
      ? Promise.all(before.map(({ done }) => done)).then(() => start([]))
      : start(call === undefined ? [] : [call, ...after]),
  );
  const end = () => release(access, work);
  const work: Work = { call, addon, done: result.then(end, end) };
  register(access, work);
  return result;
}

/** Whether asynchronous work on the memory is under way. */
export function isBusy({ reads, writes }: Access): boolean {
  for (const buffer of reads) if (pending.get(buffer)?.writer) return true;
  for (const buffer of writes) {
    const entry = pending.get(buffer);
    if (entry && (entry.writer || entry.readers.size > 0)) return true;
  }
  return false;
}

/** For synchronous work, which cannot wait: ERR_BUSY where asynchronous work on the same memory is under way. */
export function assertIdle(access: Access, method: string, twin = false): void {
  if (isBusy(access))
    throw new ScoreSdeError(
      'ERR_BUSY',
      `${method} needs memory that an asynchronous call still works on; await that call${twin ? `, or use ${method}Async, which waits its turn` : ' first'}`,
    );
}
