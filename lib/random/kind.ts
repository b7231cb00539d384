import { ScoreSdeError } from '../errors';
import { show } from '../options';

export type GeneratorKind = 'philox' | 'torch';

/** A position in a philox stream. */
export interface PhiloxState {
  /** The kind of generator. */
  engine: 'philox';
  /** Philox's key, 0 <= seed < 2^64. */
  seed: bigint;
  /** Counters used so far, 0 <= offset < 2^64; each gives four normals. */
  offset: bigint;
}

/** A seed as torch.manual_seed takes it: an integer -2^63 <= seed < 2^64, where a negative one means seed + 2^64. ERR_RANGE otherwise. */
export function seedOf(seed: unknown, name = 'seed'): bigint {
  const isInteger = typeof seed === 'bigint' || Number.isSafeInteger(seed);
  const value = isInteger ? BigInt(seed as number | bigint) : undefined;
  if (value === undefined || value < -(2n ** 63n) || value >= 2n ** 64n)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `${name} must be an integer from -2^63 to 2^64 - 1 (a bigint where it is not a safe integer), got ${show(seed)}`,
    );
  return BigInt.asUintN(64, value);
}
