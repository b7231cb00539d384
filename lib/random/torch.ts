import { ScoreSdeError } from '../errors';
import { show } from '../options';
import { native } from '../native/addon';

const stateBytes = 5056;

/** torch's CPU generator. `state` has the layout of torch.Generator.get_state(). */
export class TorchStream {
  readonly name = 'torch';
  readonly state = new Uint8Array(stateBytes);

  constructor(seed: bigint) {
    this.reseed(seed);
  }

  get seed(): bigint {
    return new DataView(this.state.buffer).getBigUint64(0, true);
  }

  reseed(seed: bigint): void {
    native.torchSeed(this.state, seed);
  }

  getState(): Uint8Array {
    return this.state.slice();
  }

  setState(state: unknown): void {
    if (!ArrayBuffer.isView(state) || state.byteLength !== stateBytes)
      throw new ScoreSdeError(
        'ERR_STATE',
        `state must be the ${stateBytes} bytes of torch's get_state(), got ${show(state)}`,
      );
    const bytes = new Uint8Array(state.buffer, state.byteOffset, stateBytes).slice();
    if (!native.torchStateIsSound(bytes))
      throw new ScoreSdeError(
        'ERR_STATE',
        "state is not one of torch's: its position and the words it has left disagree",
      );
    this.state.set(bytes);
  }
}
