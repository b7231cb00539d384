import { ScoreSdeError } from './errors';
import type { Signal } from './platform';

/** Whether a value is an object literal (no array, no class instance), also of another realm. */
export function isPlainObject(value: unknown): value is object {
  if (Object.prototype.toString.call(value) !== '[object Object]') return false;
  const proto = Object.getPrototypeOf(value) as object | null;
  return proto === null || Object.getPrototypeOf(proto) === null;
}

// Options are the properties of an object: of a literal, of an instance of a class (a validated DTO), or inherited from
// another object (Object.create(defaults)). An option that is undefined is not given. null is a value, which every option
// refuses as it does other wrong ones: `??` would pass it over (a lint rule).

/** Whether a value can hold options. A Tensor, an array or a string in their place would otherwise be ignored silently. */
export function holdsOptions(value: unknown, known: readonly string[]): value is object {
  if (isPlainObject(value)) return true;
  if (Object.prototype.toString.call(value) !== '[object Object]') return false;
  return isOfNoClass(value as object) || known.some((key) => key in (value as object));
}

/** Whether an object inherits from object literals alone. */
function isOfNoClass(value: object): boolean {
  let proto = Object.getPrototypeOf(value) as object | null;
  while (proto !== null && !Object.hasOwn(proto, 'constructor')) proto = Object.getPrototypeOf(proto) as object | null;
  return proto === null || Object.getPrototypeOf(proto) === null;
}

/** A key that is given and not known; undefined where there is none. */
export function unknownOption(options: object, known: readonly string[]): string | undefined {
  for (const key in options)
    if (!known.includes(key) && options[key as never] !== undefined)
      // What a library has added to all objects is no option.
      if (Object.hasOwn(options, key) || !(key in Object.prototype)) return key;
  return undefined;
}

/** ` (did you mean "batchSize"?)` of "batch_size": the known name with the same letters and digits. Empty where there is none. */
export function meant(given: string, known: readonly string[]): string {
  const bare = (name: string) =>
    name
      .toLowerCase()
      .replaceAll('+', 'p')
      .replace(/[^a-z0-9]/g, '');
  const name = known.find((other) => other !== given && bare(other) === bare(given));
  return name === undefined ? '' : ` (did you mean ${show(name)}?)`;
}

/** The known options that are given, as an object's own properties. */
export function givenOptions<T extends object>(options: T, known: readonly string[]): Partial<T> {
  const entries = known.map((key) => [key, (options as Record<string, unknown>)[key]] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined)) as Partial<T>;
}

/** ERR_CONFIG unless `options` can hold options, and has only `known` ones. */
export function assertOptions(options: unknown, known: readonly string[]): void {
  if (!holdsOptions(options, known))
    throw new ScoreSdeError('ERR_CONFIG', `options must be an object of named values, got ${show(options)}`);
  const unknown = unknownOption(options, known);
  if (unknown !== undefined)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      isPlainObject(options)
        ? `unknown option ${show(unknown)}${meant(unknown, known)}; expected ${known.join(', ')}`
        : `options must hold ${known.join(', ')} and no ${show(unknown)}, got ${show(options)}`,
    );
}

/** What a static method was called on where that is a class which extends `Class`, else `Class`. */
export function extensionOf<T extends { prototype: object }>(receiver: unknown, Class: T): T {
  const isExtension = typeof receiver === 'function' && receiver.prototype instanceof (Class as never);
  return isExtension ? (receiver as unknown as T) : Class;
}

/** ERR_CONFIG unless `signal` is an AbortSignal, or left out. */
export function assertSignal(signal: Signal | undefined): void {
  if (signal !== undefined && (typeof signal?.aborted !== 'boolean' || typeof signal.addEventListener !== 'function'))
    throw new ScoreSdeError('ERR_CONFIG', `signal must be an AbortSignal, got ${show(signal)}`);
}

/** ERR_CONFIG unless `value` is a function, or left out. */
export function assertFunction(value: unknown, name: string): void {
  if (value !== undefined && typeof value !== 'function')
    throw new ScoreSdeError('ERR_CONFIG', `${name} must be a function, got ${show(value)}`);
}

const copy = Symbol.for('score-sde.copy');
const thisCopy = Object.freeze({});

/** Marks a class as of this copy of the package. A process may have loaded another copy, whose instances are not of it. */
export function markCopy(Class: { prototype: object }): void {
  Object.defineProperty(Class.prototype, copy, { value: thisCopy });
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
  const from = (value as Record<symbol, unknown>)[copy];
  if (from !== undefined && from !== thisCopy)
    return `a ${name} of another copy of score-sde (npm ls score-sde lists them)`;
  return name && name !== 'Object' ? `a ${name}` : 'an object';
}
