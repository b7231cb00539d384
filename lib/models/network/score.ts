import { ScoreSdeError } from '../../errors';
import { show } from '../../options';
import { Dtype, NoiseKind, Row, RowKind, type StepArgs } from '../../native/abi';
import { KernelCall } from '../../native/call';
import { bufferOf, placeOf } from '../../native/memory';
import { numbersOf, type PerSample } from '../../tensor/arguments';
import { assertGoesOn } from '../../signals';
import { assertApart, assertOnePlace, batchShape, operand, target, type Operand } from '../../tensor/operand';
import { Tensor, type TensorLike } from '../../tensor/tensor';
import {
  assertContext,
  assertInputs,
  type ModelContext,
  type ModelInputs,
  type Parameterization,
  type ScoreModel,
} from '../model';
import { checkedResult } from '../result';

/** As ModelContext, with memory of any state type for the score. */
interface ScoreContext extends Omit<ModelContext, 'out'> {
  readonly out?: TensorLike | undefined;
}

/**
 * The score by a network's output, called outside of a run: two passes beside the network's call. A signal is heeded before
 * that call and after it, and by the network.
 * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_RANGE (sigma must be above 0: the score is divided by it), ERR_CONFIG, ERR_MODEL,
 *   ERR_ALIAS, ERR_DISPOSED, ERR_ABORTED
 */
export function scoreOf(network: ScoreModel, { denoised, scale, label }: Parameterization) {
  return async (
    sample: TensorLike,
    sigma: PerSample,
    inputs: ModelInputs = {},
    context: ScoreContext = {},
  ): Promise<Tensor> => {
    assertInputs(inputs, 'inputs');
    assertContext(context);
    const { signal } = context;
    const x = operand(sample, 'sample');
    const { rows } = batchShape(x);
    const levels = numbersOf(sigma, rows, 'sigma');
    const wrong = levels.find((level) => !(level > 0 && level < Infinity));
    if (wrong !== undefined)
      throw new ScoreSdeError('ERR_RANGE', `sigma must be finite and above 0, got ${show(wrong)}`);
    const device = placeOf(x.memory);
    const out = target(context.out, x, 'out', { device });
    assertOnePlace([x, out.operand]);
    assertApart(out.operand, x);
    const seen = levels.some((level) => scale(level) !== 1) ? Tensor.empty(x.dims, { device }) : undefined;
    try {
      if (seen !== undefined)
        await combine(
          x,
          undefined,
          levels.map((level) => [scale(level), 0]),
          operand(seen, 'sample'),
        ).runAsync();
      const told = new Tensor(
        'float32',
        Float32Array.from({ length: rows }, (_, i) => label(at(levels, i))),
        [rows],
      );
      const output = await network((seen ?? sample) as Tensor<'float32'>, told, inputs, signal ? { signal } : {});
      assertGoesOn(signal);
      const weights = levels.map((level): [number, number] => {
        const { skip, out } = denoised(level);
        return [(skip - 1) / level ** 2, out / level ** 2];
      });
      await combine(x, checkedResult(output, x.dims, sample), weights, out.operand).runAsync();
      return out.tensor;
    } finally {
      seen?.dispose();
    }
  };
}

/** The value of a row, from one for all or one each. */
function at(list: readonly number[], row: number): number {
  return list[list.length === 1 ? 0 : row]!;
}

/** out = a x + b m, with weights for all rows or one pair each. */
function combine(x: Operand, m: Operand | undefined, weights: (readonly [number, number])[], out: Operand) {
  const { rows, cols } = batchShape(x);
  const records = new Float32Array(weights.length * Row.size);
  weights.forEach(([a, b], i) => {
    const record = records.subarray(i * Row.size, (i + 1) * Row.size);
    record[Row.kind] = RowKind.linear;
    record[Row.a] = a;
    record[Row.b] = b;
    record[Row.terms] = m === undefined ? 0 : 1;
  });
  const { float32 } = Dtype;
  const args = () =>
    [
      ...[rows, cols, records, x.memory, x.type, m?.memory ?? null, m?.type ?? float32],
      ...[NoiseKind.none, null, float32, out.memory, out.type],
    ] as unknown as StepArgs;
  const reads = [x, ...(m ? [m] : [])].map(({ memory }) => bufferOf(memory));
  return new KernelCall('step', args, { reads, writes: [bufferOf(out.memory)] });
}
