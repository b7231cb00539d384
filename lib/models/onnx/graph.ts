import type { Buffer } from 'node:buffer';
import { turn } from '../../clock';

/** What is known of a network from its file, before ONNX Runtime loads it. */
export interface Graph {
  /** Whether the file is ONNX and whole; else the rest may be missing here. */
  readonly isWhole: boolean;
  /** The files that hold weights beside it, by their names as its tensors spell them, and the bytes that each must have. */
  readonly external: ReadonlyMap<string, number>;
  /** The names of its inputs' free sizes. */
  readonly free: ReadonlySet<string>;
}

/** Messages of onnx.proto, and the fields in them that lead to what is looked for. Other fields are passed over unread. */
const messages = {
  model: { 7: 'graph', 25: 'function' },
  function: { 7: 'node' },
  graph: { 1: 'node', 5: 'tensor', 11: 'input', 15: 'sparse' },
  subgraph: { 1: 'node', 5: 'tensor', 15: 'sparse' },
  node: { 5: 'attribute' },
  attribute: { 5: 'tensor', 6: 'subgraph', 10: 'tensor', 11: 'subgraph', 22: 'sparse', 23: 'sparse' },
  sparse: { 1: 'tensor', 2: 'tensor' },
  tensor: { 13: 'entry', 14: 'place' },
  entry: { 1: 'key', 2: 'value' },
  input: { 2: 'type' },
  type: { 1: 'tensorType' },
  tensorType: { 2: 'shape' },
  shape: { 1: 'dim' },
  dim: { 2: 'dimName' },
} as const satisfies Record<string, Record<number, string>>;
type Message = keyof typeof messages;

/** The most bytes of a text that is looked for, and of messages within each other. */
const [mostText, mostDepth] = [4096, 100];
/** Bytes that are there of each piece, unless the file ends: a field's head and a text. */
export const leastPiece = mostText + 32;
/** Fields that are read between two turns of the event loop. */
const fieldsPerTurn = 256;

/**
 * Reads a network's file as far as names lead: of weights in it only their lengths, so that a file of gigabytes takes little.
 * @param pieceAt At least {@link leastPiece} bytes from a place on, or all that are left
 */
export async function readGraph(size: number, pieceAt: (at: number) => Promise<Buffer> | Buffer): Promise<Graph> {
  const external = new Map<string, number>();
  const free = new Set<string>();
  const graph = (isWhole: boolean): Graph => ({ isWhole, external, free });
  let [piece, from, at, hasGraph] = [await pieceAt(0), 0, 0, false];

  /** Seven bits a byte, the low ones first; NaN where the file ends. */
  const varint = (): number => {
    for (let value = 0, factor = 1; ; factor *= 128) {
      const byte = piece[at++ - from];
      if (byte === undefined || factor > 2 ** 63) return NaN;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  };

  // What is known of the tensor and of the entry that are being read.
  let tensor = { isExternal: false, entries: new Map<string, string>() };
  let entry = { key: '', value: '' };
  const begin = (message: Message): void => {
    if (message === 'graph') hasGraph = true;
    if (message === 'tensor') tensor = { isExternal: false, entries: new Map() };
    if (message === 'entry') entry = { key: '', value: '' };
  };
  const end = (message: Message): void => {
    if (message === 'entry') tensor.entries.set(entry.key, entry.value);
    const location = tensor.entries.get('location');
    if (message !== 'tensor' || !tensor.isExternal || location === undefined) return;
    // A tensor without a length has at least one byte.
    const { offset = '0', length = '1' } = Object.fromEntries(tensor.entries);
    const least = Number(offset) + Number(length);
    external.set(location, Math.max(external.get(location) ?? 0, Number.isSafeInteger(least) ? least : 1));
  };

  const open: { message: Message; end: number }[] = [{ message: 'model', end: size }];
  for (let fields = 1; open.length > 0; fields++) {
    const inner = open.at(-1)!;
    if (at >= inner.end) {
      if (at > inner.end) return graph(false);
      end(open.pop()!.message);
      continue;
    }
    if (fields % fieldsPerTurn === 0) await turn();
    const left = from + piece.length - at;
    if (left < 0 || (left < leastPiece && from + piece.length < size)) [piece, from] = [await pieceAt(at), at];
    const tag = varint();
    const [field, wire] = [Math.floor(tag / 8), tag % 8];
    const found = (messages[inner.message] as Record<number, string>)[field];
    if (wire === 2) {
      const length = varint();
      if (!(at + length <= inner.end)) return graph(false);
      if (found !== undefined && found in messages) {
        if (open.length === mostDepth) return graph(false);
        begin(found as Message);
        open.push({ message: found as Message, end: at + length });
        continue;
      }
      if (found !== undefined && length <= mostText) {
        const text = piece.toString('utf8', at - from, at - from + length);
        if (found === 'dimName' && text !== '') free.add(text);
        else if (found === 'key' || found === 'value') entry[found] = text;
      }
      at += length;
    } else if (wire === 0) {
      const value = varint();
      if (Number.isNaN(value)) return graph(false);
      if (found === 'place') tensor.isExternal = value === 1;
    } else if (wire === 1 || wire === 5) at += wire === 1 ? 8 : 4;
    else return graph(false);
  }
  return graph(hasGraph);
}
