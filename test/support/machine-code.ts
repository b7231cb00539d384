/**
 * The machine code of a kernel, as far as counting needs it. From compute capability 7.0 on an instruction has 128 bits:
 * bits 0 to 8 are the operation and 9 to 11 the form of its operands, 12 to 15 its predicate.
 */
interface Instruction {
  readonly operation: number;
  /** Whether it is done whatever its predicates say. */
  readonly always: boolean;
  /** Of an access to memory, 5 for 64 bits and 6 for 128. */
  readonly width: number;
  readonly isRoot: boolean;
  /** Where a branch goes. */
  readonly target: number;
}

/** The units that execute instructions. */
export type Pipe = 'fma' | 'alu' | 'double' | 'special' | 'other';

const [branch, call, exit, back, load, store, special] = [0x147, 0x144, 0x14d, 0x150, 0x181, 0x186, 0x108];

function decode(low: bigint, high: bigint, index: number): Instruction {
  const bits = (word: bigint, first: number, count: number): number =>
    Number(BigInt.asUintN(count, word >> BigInt(first)));
  const operation = bits(low, 0, 9);
  // A distance has bits 16 to 23 and, above those, 34 to 81, in words of 32 bits from the next instruction on.
  const distance = (((low >> 34n) | ((high & 0x3ffffn) << 30n)) << 8n) | ((low >> 16n) & 0xffn);
  return {
    operation,
    always: bits(low, 12, 4) === 7 && (operation !== branch || bits(high, 23, 4) === 7),
    width: bits(high, 9, 3),
    isRoot: operation === special && bits(high, 10, 4) === 5,
    target: index + 1 + Number(BigInt.asIntN(56, distance)) / 4,
  };
}

const pipes: readonly [Pipe, readonly number[]][] = [
  ['fma', [0x20, 0x21, 0x23, 0x24, 0x25, 0x27, 0x30, 0x31, 0x35]], // IMAD runs here, too, and halves
  ['double', [0x28, 0x29, 0x2b]],
  ['special', [0x104, 0x105, 0x106, special, 0x110, 0x111, 0x112]], // roots and conversions to or from 64 bits
];

function pipeOf({ operation }: Instruction): Pipe {
  const found = pipes.find(([, operations]) => operations.includes(operation));
  // Above are what is uniform to a warp, memory and control.
  return found ? found[0] : operation < 0x80 ? 'alu' : 'other';
}

/** The code of each kernel in a cubin, by its mangled name. */
export function kernelsOf(cubin: Buffer): Map<string, Instruction[]> {
  const sections = Number(cubin.readBigUInt64LE(40));
  const at = (index: number, field: number): number => sections + 64 * index + field;
  const offset = (index: number): number => Number(cubin.readBigUInt64LE(at(index, 24)));
  const names = offset(cubin.readUInt16LE(62));
  const found = new Map<string, Instruction[]>();
  for (let index = 0; index < cubin.readUInt16LE(60); ++index) {
    const first = names + cubin.readUInt32LE(at(index, 0));
    const name = cubin.toString('latin1', first, cubin.indexOf(0, first));
    if (!name.startsWith('.text.')) continue;
    const end = offset(index) + Number(cubin.readBigUInt64LE(at(index, 32)));
    const code: Instruction[] = [];
    for (let p = offset(index); p < end; p += 16)
      code.push(decode(cubin.readBigUInt64LE(p), cubin.readBigUInt64LE(p + 8), code.length));
    found.set(name.slice('.text.'.length), code);
  }
  return found;
}

/** What a way through a kernel has at least: roots, and accesses to global memory of so many bits. */
export interface Needs {
  readonly roots: number;
  readonly loads: number;
  readonly stores: number;
  readonly width: 64 | 128;
}

/** The instructions of the shortest way through a kernel that has all that, by pipe; slow paths are calls, and left out. */
export function shortestWay(code: readonly Instruction[], needs: Needs): Record<Pipe | 'all', number> {
  const wide = needs.width === 128 ? 6 : 5;
  const kinds = [needs.roots, needs.loads, needs.stores].map((most, kind) => {
    const counts = ({ operation, width, isRoot }: Instruction): boolean =>
      kind === 0 ? isRoot : operation === (kind === 1 ? load : store) && width === wide;
    return { most, counts };
  });
  // A state is an instruction and how many of each kind came before it, as one number.
  const size = kinds.reduce((product, { most }) => product * (most + 1), 1);
  const after = (state: number): { index: number; had: number; complete: boolean } => {
    const index = Math.floor(state / size);
    let had = 0;
    let complete = true;
    let rest = state % size;
    let unit = 1;
    for (const { most, counts } of kinds) {
      const count = Math.min(most, (rest % (most + 1)) + Number(counts(code[index]!)));
      complete &&= count === most;
      had += count * unit;
      rest = Math.floor(rest / (most + 1));
      unit *= most + 1;
    }
    return { index, had, complete };
  };
  const from = new Map<number, number>([[0, -1]]);
  for (const state of from.keys()) {
    const { index, had, complete } = after(state);
    const one = code[index]!;
    if (one.operation === exit && complete) {
      const way = { all: 0, fma: 0, alu: 0, double: 0, special: 0, other: 0 };
      for (let s = state; s !== -1; s = from.get(s)!) {
        ++way.all;
        ++way[pipeOf(code[Math.floor(s / size)]!)];
      }
      return way;
    }
    const next: number[] = [];
    if (one.operation === branch) next.push(one.target);
    if (one.operation !== call && one.operation !== back && !(one.always && [branch, exit].includes(one.operation)))
      next.push(index + 1);
    for (const target of next) {
      const reached = target * size + had;
      if (target < code.length && !from.has(reached)) from.set(reached, state);
    }
  }
  throw new Error('no way through the kernel has that');
}
