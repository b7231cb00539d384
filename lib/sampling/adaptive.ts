import { RowNormals } from '../native/abi';
import type { Parameterization } from '../models/model';
import type { LinearUpdate, Stage } from '../solvers/solver';
import type { Operand } from '../tensor/operand';
import { rowsOf } from '../tensor/views';
import { rowErrors } from './error';
import type { Executor } from './executor/executor';
import type { Lane, Stages } from './lane';
import { keepsRow, planPass, recordsOf } from './passes';
import type { Pool } from './pool';
import { writeRow } from './row';

/**
 * The error control of adaptive solvers: beside the update of a stage it computes the result of lower order, and measures
 * how far the two are apart.
 */
export class ErrorControl {
  constructor(
    private readonly pool: Pool,
    private readonly executor: Executor,
    private readonly parameterization: Parameterization | undefined,
  ) {}

  /** The results of lower order of the last accepted steps and of the present ones. */
  get #low() {
    const { pool } = this;
    return (pool.low ??= { accepted: pool.own(), present: pool.own() });
  }

  /** The start of a run takes the place of the result of lower order of the step before the first. */
  async begin({ first, rows }: Lane): Promise<void> {
    await this.pool.copy(rowsOf(this.pool.x, first, rows), rowsOf(this.#low.accepted, first, rows), 'x');
  }

  /** Computes the results of lower order. Returns the lanes whose stages have one; undefined where there are none. */
  async lower(stages: Stages, rows: number, output: Operand): Promise<readonly Lane[] | undefined> {
    const lowOf = ({ update }: Stage) => (update.kind === 'linear' ? update.low : undefined);
    const measured = [...stages].filter(([, stage]) => lowOf(stage) !== undefined).map(([lane]) => lane);
    if (measured.length === 0) return undefined;
    const { pool, parameterization } = this;
    const records = () =>
      recordsOf(stages, rows, (record, stage) => {
        const low = lowOf(stage);
        if (low === undefined) return keepsRow(record);
        const update: LinearUpdate = { ...(stage.update as LinearUpdate), ...low, a: 0 };
        writeRow(record, { ...stage, update }, { parameterization, normals: RowNormals.none, group: 0 });
      });
    await this.executor.work(planPass(pool, { rows, records, from: pool.x, to: this.#low.present, output }));
    return measured;
  }

  /** The errors of the lanes that {@link lower} returned and whose update is finite, once the updates are over. */
  async errors(measured: readonly Lane[]): Promise<Map<Lane, number>> {
    const errors = new Map<Lane, number>();
    const { accepted, present } = this.#low;
    for (const lane of measured) {
      if (lane.failure !== undefined) continue;
      const [x, low, before] = [this.pool.x, present, accepted].map((tensor) => rowsOf(tensor, lane.first, lane.rows));
      errors.set(lane, await rowErrors(x!, low!, before!, lane.solver.tolerance!));
    }
    return errors;
  }

  /** A lane's step was accepted. */
  async accept({ first, rows }: Lane): Promise<void> {
    const { accepted, present } = this.#low;
    await this.pool.copy(rowsOf(present, first, rows), rowsOf(accepted, first, rows), 'low');
  }

  /** Takes a lane whose last accepted step had this result of lower order. */
  async restore({ first, rows }: Lane, low: Parameters<Pool['copy']>[0]): Promise<void> {
    await this.pool.copy(low, rowsOf(this.#low.accepted, first, rows), 'low');
  }
}
