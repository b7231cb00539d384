import type { Signal } from './platform';

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

/** The class of this package's errors. `code` is stable; `message` is one sentence: which argument, what was expected, what was given. */
export class ScoreSdeError extends Error {
  /** What kind of error it is; stable. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ScoreSdeError';
    this.code = code;
  }
}

/** The error of an aborted call. Its name is 'AbortError', as of the platform's own errors; `cause` is the signal's reason. */
export class AbortError extends ScoreSdeError {
  constructor(signal: Signal) {
    super('ERR_ABORTED', 'the operation was aborted', { cause: signal.reason });
    this.name = 'AbortError';
  }
}

/** The page that says how a network is exported, by its usual path from an application. Errors about networks that do not fit name it. */
export const exportingPage = 'node_modules/score-sde/docs/exporting.md';

/** The page on bundlers, Electron and other ways to ship an application, by its usual path. */
export const deployingPage = 'node_modules/score-sde/docs/deploying.md';

/** The message of a thrown value, on one line. The value need not be an Error. */
export function reasonOf(thrown: unknown): string {
  const text = typeof thrown === 'object' && thrown !== null && 'message' in thrown ? thrown.message : thrown;
  return String(text)
    .trim()
    .replace(/\s*\n\s*/g, ' ');
}
