import { ScoreSdeError, type ErrorCode, type Generator } from '../../lib';

/** The error of a call that must fail; one of this package, else the test fails. */
export function failure(run: () => unknown): ScoreSdeError {
  let result: unknown;
  try {
    result = run();
  } catch (error) {
    return own(error);
  }
  throw new Error(`nothing was thrown, but ${String(result)} returned`);
}

/** The error of an asynchronous call: it must reject, and not throw where it is called. */
export async function rejection(start: () => Promise<unknown>): Promise<ScoreSdeError> {
  let promise: Promise<unknown>;
  try {
    promise = start();
  } catch (error) {
    throw new Error(`thrown where it was called, not rejected: ${String(error)}`);
  }
  return promise.then(
    (result) => Promise.reject(new Error(`not rejected, but resolved to ${String(result)}`)),
    (error: unknown) => own(error),
  );
}

/** The error, where it is one of this package; else the test fails. */
export function own(error: unknown): ScoreSdeError {
  if (error instanceof ScoreSdeError) return error;
  const { name, stack } = error as Error;
  throw new Error(`not a ScoreSdeError but a ${name}: ${stack}`);
}

/** Fails unless the error has (one of) the code, and one readable sentence with all of `says` in it. */
export function sentence({ code, message }: ScoreSdeError, expected: ErrorCode | ErrorCode[], ...says: RegExp[]): void {
  expect({ code: [expected].flat().includes(code) ? expected : code, message }).toEqual({ code: expected, message });
  for (const part of says) expect(message).toMatch(part);
  expect(message).toMatch(/^\S.{10,}\S$/);
  expect(message.length).toBeLessThan(600);
  // No second sentence, no object that was pasted without thought, nothing that was computed from nothing.
  expect(message).not.toMatch(/[.!?] +[A-Z]|\[object|: undefined|undefined elements|NaN elements/);
}

/** The position of a generator, to be compared with toBe. */
export function position(generator: Generator): string {
  const state = generator.getState();
  if (!('engine' in state)) return Buffer.from(state).toString('base64');
  return `${state.seed}/${state.offset}`;
}

/** A copy of all bytes of the memory that a view lies in. */
export function bytesAround(data: unknown): Buffer {
  // A view of memory that is gone has no bytes.
  return ArrayBuffer.isView(data) && data.byteLength > 0
    ? Buffer.from(new Uint8Array(data.buffer).slice())
    : Buffer.alloc(0);
}

/** The data of a value that may be no tensor at all. */
export function dataOf(value: unknown): unknown {
  try {
    return (value as { data?: unknown } | null | undefined)?.data;
  } catch {
    return undefined;
  }
}
