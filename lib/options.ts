import { ScoreSdeError } from './errors';

/** Whether a value is an object literal (no array, no class instance), also of another realm. */
export function isPlainObject(value: unknown): value is object {
  if (Object.prototype.toString.call(value) !== '[object Object]') return false;
  const proto = Object.getPrototypeOf(value) as object | null;
  return proto === null || Object.getPrototypeOf(proto) === null;
}

/**
 * ERR_CONFIG unless `options` is an object literal, with only `known` keys where they are given. A Generator or a string in
 * its place would otherwise be ignored silently.
 */
export function assertOptions(options: unknown, known?: readonly string[]): void {
  if (!isPlainObject(options))
    throw new ScoreSdeError('ERR_CONFIG', `options must be an object of named values, got ${show(options)}`);
  if (known === undefined) return;
  for (const key in options)
    if (!known.includes(key) && Object.hasOwn(options, key) && options[key as keyof object] !== undefined)
      throw new ScoreSdeError('ERR_CONFIG', `unknown option ${show(key)}; expected ${known.join(', ')}`);
}

/** What a static method was called on where that is a class which extends `Class`, else `Class`. */
export function extensionOf<T extends { prototype: object }>(receiver: unknown, Class: T): T {
  const isExtension = typeof receiver === 'function' && receiver.prototype instanceof (Class as never);
  return isExtension ? (receiver as unknown as T) : Class;
}

/** A value for an error message: short, with its type, never its whole content. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'symbol') return 'a symbol';
  if (value === null || typeof value !== 'object') return String(value);
  if (Array.isArray(value))
    return value.length <= 8 && value.every((v) => typeof v === 'number')
      ? `[${value.join(', ')}]`
      : `an array of ${value.length}`;
  const name = (Object.getPrototypeOf(value) as object | null)?.constructor?.name;
  if (ArrayBuffer.isView(value) && 'length' in value) return `a ${name} of ${String(value.length)}`;
  return name && name !== 'Object' ? `a ${name}` : 'an object';
}
