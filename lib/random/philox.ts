import { ScoreSdeError } from '../errors';
import { show } from '../options';
import type { PhiloxState } from './kind';

/** Philox4x32-10 (Salmon et al. 2011): key = seed, counter = offset + element / 4, word = element % 4. */
export class PhiloxStream {
  readonly name = 'philox';
  seed: bigint;
  offset = 0n;

  constructor(seed: bigint) {
    this.seed = seed;
  }

  reseed(seed: bigint): void {
    this.seed = seed;
    this.offset = 0n;
  }

  /** Takes the next draw of `count` normals. */
  reserve(count: number): [key: bigint, counter: bigint] {
    const { seed, offset } = this;
    this.offset = BigInt.asUintN(64, offset + BigInt(Math.ceil(count / 4)));
    return [seed, offset];
  }

  getState(): PhiloxState {
    return { engine: 'philox', seed: this.seed, offset: this.offset };
  }

  setState(state: unknown): void {
    const { engine, seed, offset } = (state ?? {}) as Partial<PhiloxState>;
    if (engine !== 'philox')
      throw new ScoreSdeError(
        'ERR_STATE',
        `state must be what getState() of a philox generator returned, got ${show(state)}`,
      );
    for (const [name, word] of Object.entries({ seed, offset }))
      if (typeof word !== 'bigint' || word < 0n || word >= 2n ** 64n)
        throw new ScoreSdeError('ERR_STATE', `state.${name} must be a bigint from 0 to 2^64 - 1, got ${show(word)}`);
    [this.seed, this.offset] = [seed!, offset!];
  }
}
