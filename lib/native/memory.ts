import { ScoreSdeError } from '../errors';
import { type DeviceHandle, type StateMemory } from './abi';
import { native } from './addon';

/** All memory of a device, of which every block is a part. */
const spaces = new Map<number, object>();

/** The number of a CUDA device, by its name in this package's words. */
export function deviceIndex(device: string): number {
  return Number(device.slice('cuda:'.length));
}

/** A block of a CUDA device's memory, with as much of a typed array's face as the checks of operands need. */
export class DeviceMemory {
  /** The same for all memory of the device: blocks of other owners may overlap. */
  readonly buffer: object;
  /** The address. */
  readonly byteOffset: number;
  readonly device: string;
  #handle: DeviceHandle | undefined;

  constructor(
    handle: DeviceHandle,
    readonly index: number,
    readonly length: number,
    readonly byteLength: number,
    /** Whether its owner lends it to be read alone. */
    readonly readOnly = false,
  ) {
    let space = spaces.get(index);
    if (!space) spaces.set(index, (space = {}));
    this.buffer = space;
    this.device = `cuda:${index}`;
    this.byteOffset = native.deviceAddress(handle);
    this.#handle = handle;
  }

  /** New memory, not cleared. ERR_MEMORY, ERR_CUDA. */
  static allocate(device: string, length: number, bytesPerElement: number): DeviceMemory {
    const index = deviceIndex(device);
    const bytes = length * bytesPerElement;
    return new DeviceMemory(native.deviceAllocate(index, bytes), index, length, bytes);
  }

  /** What the addon knows it by. ERR_DISPOSED. */
  get handle(): DeviceHandle {
    if (this.#handle === undefined) throw new ScoreSdeError('ERR_DISPOSED', `the memory on ${this.device} is disposed`);
    return this.#handle;
  }

  get released(): boolean {
    return this.#handle === undefined;
  }

  /** Gives it back, after what is enqueued. */
  release(): void {
    if (this.#handle !== undefined) native.deviceRelease(this.#handle);
    this.#handle = undefined;
  }
}

/** Where a state's elements lie: on the host, or on a device. */
export type Memory = StateMemory | DeviceMemory;

/** What asynchronous work on memory is known by: the buffer on the host, the block on a device, whose stream has an order of its own. */
export function bufferOf(memory: ArrayBufferView | DeviceMemory): object {
  return memory instanceof DeviceMemory ? memory : memory.buffer;
}

/** 'cpu', or the CUDA device. */
export function placeOf(memory: unknown): string {
  return memory instanceof DeviceMemory ? memory.device : 'cpu';
}
