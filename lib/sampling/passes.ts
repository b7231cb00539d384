import { Row, RowKind, type NonFinite } from '../native/abi';
import type { Call } from '../native/call';
import type { Stage } from '../solvers/solver';
import { operand, type Operand } from '../tensor/operand';
import type { Tensor } from '../tensor/tensor';
import type { Lane, Stages } from './lane';
import type { Pool } from './pool';
import { planStep, recordOf, recordsFor, type Step } from './step';

/** Writes the record of a row of a lane. */
export type WriteRecord = (record: Float32Array, stage: Stage, lane: Lane, row: number) => void;

/** A record of x' = x. */
export function keepsRow(record: Float32Array): void {
  record.fill(0);
  record[Row.kind] = RowKind.linear;
  record[Row.a] = 1;
}

/** The records of the rows of all lanes. */
export function recordsOf(stages: Stages, rows: number, write: WriteRecord): Float32Array {
  const records = recordsFor(rows);
  for (const [lane, stage] of stages)
    for (let row = lane.first; row < lane.first + lane.rows; row++) write(recordOf(records, row), stage, lane, row);
  return records;
}

/** A pass over the first rows of a pool, from one of its tensors to another. Its operands beside are the pool's history and base. */
export function planPass(
  pool: Pool,
  { from, to, ...rest }: { from: Tensor<'float32'>; to: Tensor<'float32'> } & Omit<Step, 'x' | 'out' | 'cols'>,
): Call<NonFinite> {
  const { base, history, cols } = pool;
  return planStep({
    cols,
    x: operand(from, 'sample'),
    history: history.map((kept) => operand(kept, 'history')),
    base: optional(base, 'base'),
    out: operand(to, 'out'),
    ...rest,
  });
}

export function optional(tensor: Tensor<'float32'> | undefined, name: string): Operand | undefined {
  return tensor && operand(tensor, name);
}
