/** The stable codes of {@link ScoreSdeError}. */
export type ErrorCode =
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_RANGE'
  | 'ERR_CONFIG'
  | 'ERR_STATE'
  | 'ERR_ALIAS'
  | 'ERR_DISPOSED'
  | 'ERR_BUSY'
  | 'ERR_ABORTED'
  | 'ERR_NON_FINITE'
  | 'ERR_MEMORY'
  | 'ERR_CUDA'
  | 'ERR_CUDA_UNAVAILABLE'
  | 'ERR_MODEL'
  | 'ERR_IO'
  | 'ERR_NATIVE';

/** Every error this package raises: a stable `code`, and one sentence that says what was expected, of which argument, and what came. */
export class ScoreSdeError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ScoreSdeError';
    this.code = code;
  }
}

/** What an aborted run rejects with: named as the platform's own, so that `error.name === 'AbortError'` holds; `cause` is the signal's reason. */
export class AbortError extends ScoreSdeError {
  constructor(signal: AbortSignal) {
    super('ERR_ABORTED', 'the operation was aborted', { cause: signal.reason });
    this.name = 'AbortError';
  }
}

/** What was thrown, on one line: not everything that is thrown is an Error, and some errors have several. */
export function reasonOf(thrown: unknown): string {
  const text = typeof thrown === 'object' && thrown !== null && 'message' in thrown ? thrown.message : thrown;
  return String(text)
    .trim()
    .replace(/\s*\n\s*/g, ' ');
}
