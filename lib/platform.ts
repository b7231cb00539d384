// Types of the platform, for programs that are compiled without lib dom and without @types/node, too.

/** What is used of an AbortSignal. */
export interface SignalLike {
  /** Whether it has been aborted. */
  readonly aborted: boolean;
  /** Why, as abort() was told. */
  readonly reason: unknown;
  addEventListener(type: 'abort', listener: () => void): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** An AbortSignal, where the compiler knows of it. */
export type Signal = typeof globalThis extends { AbortSignal: { prototype: infer S } } ? S : SignalLike;

/** A Buffer, where the compiler knows of it; a Buffer is a Uint8Array. */
export type Bytes = typeof globalThis extends { Buffer: { alloc(size: number): infer B } } ? B : Uint8Array;
