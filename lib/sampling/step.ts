import { Dtype, NoiseKind, Row, type NonFinite, type StepArgs } from '../native/abi';
import { KernelCall, type Call } from '../native/call';
import { bufferOf } from '../native/memory';
import type { Operand } from '../tensor/operand';
import type { Draws } from './draws';

/** The records of a call's rows. The addon copies them when it is called, so that one memory serves all calls. */
let records = new Float32Array(Row.size);

/** The memory for the records of so many rows. */
export function recordsFor(rows: number): Float32Array {
  if (records.length < rows * Row.size) records = new Float32Array(rows * Row.size);
  return records.subarray(0, rows * Row.size);
}

/** The record of one row among them. */
export function recordOf(records: Float32Array, row: number): Float32Array {
  return records.subarray(row * Row.size, (row + 1) * Row.size);
}

export interface Step {
  readonly rows: number;
  readonly cols: number;
  /** Writes the records, one for each row or one for all, at the moment of the call. */
  readonly records: () => Float32Array;
  readonly x: Operand;
  /** The network's output; undefined where no row reads it. */
  readonly output: Operand | undefined;
  readonly draws?: Draws | undefined;
  readonly history?: readonly Operand[] | undefined;
  readonly base?: Operand | undefined;
  readonly out: Operand;
  readonly mean?: Operand | undefined;
  readonly pushed?: Operand | undefined;
  readonly mark?: readonly unknown[] | undefined;
}

/** The call of the addon's step over memory of the batch's own, which was checked when it was made. */
export function planStep(step: Step): Call<NonFinite> {
  const { rows, cols, records, x, output, draws, history = [], base, out, mean, pushed, mark = [] } = step;
  const given = draws?.given;
  const isRead = (operand: Operand | undefined): operand is Operand => operand !== undefined;
  const access = {
    reads: [x, output, base, given, ...history].filter(isRead).map(({ memory }) => bufferOf(memory)),
    writes: [...[out, mean, pushed].filter(isRead).map(({ memory }) => bufferOf(memory)), ...(draws?.states ?? [])],
  };
  const args = () =>
    [
      rows,
      cols,
      records(),
      x.memory,
      x.type,
      ...orNull(output),
      ...(draws?.take() ?? [NoiseKind.none, null, Dtype.float32]),
      out.memory,
      out.type,
      ...orNull(mean),
      ...orNull(pushed),
      ...orNull(given),
      ...orNull(base),
      history.length,
      ...history.flatMap(orNull),
      ...mark,
    ] as unknown as StepArgs;
  return new KernelCall('step', args, access);
}

function orNull(operand: Operand | undefined): [memory: unknown, type: Dtype] {
  return operand === undefined ? [null, Dtype.float32] : [operand.memory, operand.type];
}
