import { Row } from '../native/abi';
import { planRandn } from '../random/generator';
import { batchShape, operand } from '../tensor/operand';
import { Tensor } from '../tensor/tensor';
import { rowsOf } from '../tensor/views';
import type { Executor } from './executor/executor';
import type { Lane } from './lane';
import { keepsRow } from './passes';
import type { Pool } from './pool';
import { planStep, recordsFor } from './step';

/** Draws the start of a lane: x = start z. */
export async function drawStart({ noise, levels, first, rows }: Lane, pool: Pool, executor: Executor): Promise<void> {
  const x = operand(rowsOf(pool.x, first, rows), 'sample');
  if ('generators' in noise) await executor.work(planRandn(noise.generators, x, batchShape(x), levels.start));
}

/** Adds the noise that a solver wants in x before its first call: x + opening z. */
export async function addOpening(lane: Lane, pool: Pool, executor: Executor): Promise<void> {
  const { solver, levels, noise, first, rows } = lane;
  const opening = solver.opening?.(levels) ?? 0;
  if (opening === 0) return;
  const x = operand(rowsOf(pool.x, first, rows), 'sample');
  const drawn = Tensor.empty(x.dims, { device: executor.device });
  const z = operand(drawn, 'noise');
  if ('sampler' in noise) {
    // The noise takes x up to where the first call is made.
    await pool.copy(noise.sampler(levels.sigma[0]!, lane.stage().sigma), drawn, "noiseSampler's result");
  } else {
    await executor.work(planRandn(noise.generators, z, batchShape(z)));
  }
  const records = () => {
    const record = recordsFor(1);
    keepsRow(record);
    record[Row.terms] = 1;
    record[Row.b] = opening;
    return record;
  };
  await executor.work(planStep({ rows, cols: pool.cols, records, x, output: z, out: x }));
  await executor.settle();
  drawn.dispose();
}
