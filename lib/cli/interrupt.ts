import { constants } from 'node:os';
import { AbortError } from '../errors';
import { onAbort } from '../signals';

const names = ['SIGINT', 'SIGTERM'] as const;
type Name = (typeof names)[number];

/** How long a network may go on loading after a signal, in milliseconds. */
const grace = 5000;

/** Is aborted by SIGINT or SIGTERM, with the signal's name as the reason. A second signal ends the process at once. */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  const interrupt = (name: Name) => {
    for (const each of names) process.removeListener(each, interrupt);
    controller.abort(name);
  };
  for (const each of names) process.on(each, interrupt);
  return controller.signal;
}

/** The exit code of a process that a signal ended: 130 or 143. */
export function exitCodeOf(name: unknown): number {
  return 128 + (constants.signals[name as Name] ?? constants.signals.SIGINT);
}

/**
 * What is being loaded, or ERR_ABORTED. The process may crash where it exits while ONNX Runtime loads a network, so it waits
 * for the load. It ends by the signal itself where that takes long, which a shell reports as the same exit code.
 */
export async function loaded<T extends { dispose(): Promise<void> }>(
  loading: Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const end = () => process.kill(process.pid, signal.reason as Name);
  const endListening = onAbort(signal, () => (timer = setTimeout(end, grace)));
  try {
    const made = await loading;
    if (!signal.aborted) return made;
    await made.dispose();
    throw new AbortError(signal);
  } finally {
    endListening();
    clearTimeout(timer);
  }
}
