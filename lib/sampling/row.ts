import { Row, RowKind, RowNormals, StepSizeCode } from '../native/abi';
import type { Parameterization } from '../models/model';
import { plain } from '../models/network/kind';
import type { Stage } from '../solvers/solver';

/** How the rows of a stage are updated, as records for the addon. */
export interface RowOptions {
  /** What the network's output stands for; the score unless given. */
  readonly parameterization: Parameterization | undefined;
  readonly normals: RowNormals;
  /** Rows that share the means of their norms have the same. */
  readonly group: number;
}

/**
 * Writes the record of a row. P, what a row combines, is the score for the paper's updates, and D or eps = (x - D) / sigma
 * for linear ones: each is px x + pm m of the state and the network's output m, at the network's sigma, which is a
 * float32.
 */
export function writeRow(record: Float32Array, stage: Stage, options: RowOptions): void {
  const { update } = stage;
  const sigma = Math.fround(stage.sigma);
  const { parameterization, normals, group } = options;
  record.fill(0);
  record[Row.normals] = normals;
  record[Row.group] = group;
  record[Row.pm] = 1;
  record[Row.a] = 1;
  const { skip, out } = (parameterization ?? plain).denoised(sigma);
  if (update.kind === 'linear') {
    const { a, b, base = 0, e, of } = update;
    record[Row.kind] = RowKind.linear;
    record[Row.terms] = b.length;
    record[Row.a] = a;
    record.set(b, Row.b);
    record[Row.base] = base;
    record[Row.e] = e;
    const [px, pm] = of === 'noise' ? [(1 - skip) / sigma, -out / sigma] : [skip, out];
    record[Row.px] = px;
    record[Row.pm] = pm;
    record[Row.converts] = px === 0 && pm === 1 ? 0 : 1;
    return;
  }
  if (parameterization !== undefined) {
    record[Row.converts] = 1;
    record[Row.px] = (skip - 1) / (sigma * sigma);
    record[Row.pm] = out / (sigma * sigma);
  }
  record[Row.sigma] = update.sigma;
  if (update.kind === 'reverseDiffusion') {
    record[Row.kind] = RowKind.predict;
    record[Row.next] = update.next;
  } else {
    record[Row.kind] = RowKind.correct;
    record[Row.stepSize] = StepSizeCode[update.stepSize];
    record[Row.snr] = update.snr;
  }
}
