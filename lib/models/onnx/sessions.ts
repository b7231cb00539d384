import { exportingPage, reasonOf, ScoreSdeError } from '../../errors';
import type { LoadedNetwork } from '../../native/abi';
import { native } from '../../native/addon';
import { deviceIndex } from '../../native/memory';
import { inOrder } from '../../native/order';
import { findLibrary } from './library';
import type { Settings } from './options';

/** The sessions of one network: as its options say, and with one thread to an operator. */
export class Sessions {
  readonly #library: ReturnType<typeof findLibrary>;

  /**
   * @param name What the network is called in messages
   * @param external Weights elsewhere, by their names as the network spells them
   */
  constructor(
    private readonly settings: Settings,
    private readonly name: string,
    private readonly external: ReadonlyMap<string, Uint8Array>,
  ) {
    this.#library = findLibrary(settings.libraryPath);
  }

  /**
   * A session on the device of the options; with device 'auto' on the CPU where the CUDA provider cannot be used, and why.
   * ERR_MODEL, ERR_CONFIG, ERR_CUDA_UNAVAILABLE.
   */
  async load(): Promise<{ loaded: LoadedNetwork; fallback: string | undefined }> {
    const { device, isAuto, intraOpThreads, interOpThreads } = this.settings;
    const onCpu = () => this.#load([null], intraOpThreads, interOpThreads);
    if (device === 'cpu') return { loaded: await onCpu(), fallback: undefined };
    try {
      await native.checkProviderAsync(this.#library.path, this.#library.shared);
      const cuda = [deviceIndex(device), this.settings.cudaOptions()] as const;
      return { loaded: await this.#load([...cuda], intraOpThreads, interOpThreads), fallback: undefined };
    } catch (cause) {
      if (!isAuto || (cause as ScoreSdeError).code !== 'ERR_CUDA_UNAVAILABLE') throw cause;
      return { loaded: await onCpu(), fallback: reasonOf(cause) };
    }
  }

  /** A session on the CPU whose operators use one thread. ERR_MODEL. */
  loadSingleThreaded(): Promise<LoadedNetwork> {
    return this.#load([null], 1, 1, { parallel: false, optimizedPath: '', profilePrefix: '' });
  }

  async #load(
    cuda: [null] | [device: number, options: Record<string, string>],
    intraOpThreads: number,
    interOpThreads: number,
    other: Partial<Settings['session']> = {},
  ): Promise<LoadedNetwork> {
    const { path, bytes, size } = this.settings.source;
    const session = { ...this.settings.session, ...other };
    // ONNX Runtime takes one './' from the names that it is given, and none from those in the network.
    const given = [...this.external].map(
      ([name, data]) => [name.startsWith('./') ? `./${name}` : name, data.length, data] as const,
    );
    const start = () => {
      // Memory that is transferred away has no bytes left.
      if ((bytes !== undefined && bytes.length !== size) || given.some(([, length]) => length === 0))
        throw new ScoreSdeError('ERR_DISPOSED', `the bytes of ${this.name} were transferred away while it was loaded`);
      return native.loadNetworkAsync(
        this.#library.path,
        this.#library.shared,
        ...((bytes ? [size, bytes] : [path]) as [string]),
        intraOpThreads,
        interOpThreads,
        session.graphOptimization,
        session.parallel,
        session.memoryPattern,
        session.cpuArena,
        session.logSeverity,
        session.sizes.length,
        ...session.sizes.flat(),
        session.optimizedPath,
        session.profilePrefix,
        session.config,
        given.length,
        ...given.flat(),
        ...cuda,
      );
    };
    const reads = [bytes, ...this.external.values()].flatMap((data) => (data ? [data.buffer] : []));
    try {
      return await inOrder({ reads, writes: [] }, start);
    } catch (cause) {
      const what = `${this.name} cannot be loaded`;
      if (!/protobuf parsing failed/i.test(reasonOf(cause))) throw modelError(cause, what);
      const reason = reasonOf(cause).replace(/\.$/, '');
      throw new ScoreSdeError('ERR_MODEL', `${what}: ${reason} (${exportingPage} says how a network becomes ONNX)`, {
        cause,
      });
    }
  }
}

/** The error to throw: an error of ONNX Runtime gets `what` before its message, any other stays. */
export function modelError(cause: unknown, what: string): unknown {
  if (!(cause instanceof ScoreSdeError) || cause.code !== 'ERR_MODEL') return cause;
  return new ScoreSdeError('ERR_MODEL', `${what}: ${reasonOf(cause)}`, { cause });
}
