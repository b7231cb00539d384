import { turn } from '../clock';
import type { Tensor } from '../tensor/tensor';

/** Elements between two turns of the event loop: some 50 us. */
const part = 2 ** 14;

/**
 * The error of an adaptive step: the root mean square over the elements of (x - low) / max(atol, rtol max(|low|, |before|)).
 */
export async function rowErrors(
  x: Tensor<'float32'>,
  low: Tensor<'float32'>,
  before: Tensor<'float32'>,
  { rtol, atol }: { readonly rtol: number; readonly atol: number },
): Promise<number> {
  const [high, lower, last] = await Promise.all([x.getData(), low.getData(), before.getData()]);
  let sum = 0;
  for (let start = 0; start < high.length; start += part) {
    if (start > 0) await turn();
    for (let i = start; i < Math.min(start + part, high.length); i++) {
      const delta = Math.max(atol, rtol * Math.max(Math.abs(lower[i]!), Math.abs(last[i]!)));
      sum += ((high[i]! - lower[i]!) / delta) ** 2;
    }
  }
  return Math.sqrt(sum / high.length);
}
