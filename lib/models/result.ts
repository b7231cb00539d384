import { ScoreSdeError } from '../errors';
import { assertOnePlace, assertSameDims, operand, type Operand } from '../tensor/operand';
import type { TensorLike } from '../tensor/tensor';

/** ERR_MODEL unless the model returned a result for these states, in their place. */
export function checkedResult(result: TensorLike, dims: readonly number[], beside?: TensorLike): Operand {
  try {
    const found = operand(result, 'the score');
    assertSameDims(found, { name: 'the sample', dims });
    if (beside) assertOnePlace([operand(beside, 'the sample'), found]);
    return found;
  } catch (cause) {
    if (!(cause instanceof ScoreSdeError)) throw cause;
    throw new ScoreSdeError('ERR_MODEL', `the model's result does not fit: ${cause.message}`, { cause });
  }
}
