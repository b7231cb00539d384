import { randomBytes } from 'node:crypto';
import { isLosslessNumber, LosslessNumber, parse } from 'lossless-json';
import { ScoreSdeError } from '../errors';
import { isPlainObject, show } from '../options';

// JSON as Python's json module reads and writes it: NaN and Infinity are numbers, and 1 and 1.0 are different values.

/** The longest text that is read, in characters. */
export const maxLength = 2 ** 20;
const maxDepth = 64;

/**
 * The value of a JSON text. Its numbers are LosslessNumber, which keep their digits, unless `number` makes others of the
 * digits, and NaN is a number; of a key that is given twice the last value counts. `label` names the text in errors. ERR_CONFIG.
 */
export function parseJson(
  text: string,
  label: string,
  number: (digits: string) => unknown = (digits) => new LosslessNumber(digits),
): unknown {
  if (text.length > maxLength) {
    throw new ScoreSdeError('ERR_CONFIG', `${label}: expected at most ${maxLength} characters, got ${text.length}`);
  }
  // Stands for NaN in the text. It is random, so that no text has it as a number.
  const nan = `0.${randomBytes(8).readBigUInt64BE()}`;
  try {
    return parse(toPlainJson(text, nan, label), undefined, {
      parseNumber: (digits) => (digits === nan ? Number.NaN : number(digits)),
      onDuplicateKey: ({ newValue }) => newValue,
    });
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new ScoreSdeError('ERR_CONFIG', `${label}: not valid JSON: ${cause.message}`, { cause });
  }
}

/** Replaces NaN and Infinity, which are not JSON, and refuses nesting that would overflow the parser's stack. */
function toPlainJson(text: string, nan: string, label: string): string {
  let depth = 0;
  // A string's closing quote is optional: without it, text full of escaped quotes would take quadratic time.
  const tokens = /"(?:[^"\\]|\\.)*"?|[[\]{}]|(?<![\w.+-])(?:NaN|-?Infinity)(?![\w.+-])/gs;
  return text.replace(tokens, (token) => {
    if (token === '[' || token === '{') {
      if (++depth > maxDepth) throw tooDeep(label);
    } else if (token === ']' || token === '}') depth--;
    else if (token === 'NaN') return nan;
    else if (token.endsWith('Infinity')) return token.replace('Infinity', '1e999');
    return token;
  });
}

function tooDeep(label: string): ScoreSdeError {
  return new ScoreSdeError('ERR_CONFIG', `${label}: expected at most ${maxDepth} levels of nesting, got more`);
}

/** A parsed value, with a LosslessNumber as a number. */
export function plain(value: unknown): unknown {
  return isLosslessNumber(value) ? Number(value.value) : value;
}

/** The digits of a parsed number that has neither point nor exponent, as Python writes them; undefined for any other value. */
export function integerDigits(value: unknown): string | undefined {
  if (!isLosslessNumber(value) || !/^-?\d+$/.test(value.value)) return undefined;
  return value.value === '-0' ? '0' : value.value;
}

/** json.dumps(value, indent=2, sort_keys=True), for a place `depth` levels deep. `label` names the value in errors. ERR_CONFIG. */
export function pythonValue(value: unknown, depth: number, label: string): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return pythonString(value);
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return Number.isInteger(value) ? String(BigInt(value)) : pythonFloat(value);
  if (isLosslessNumber(value)) return integerDigits(value) ?? pythonFloat(Number(value.value));
  if (!Array.isArray(value) && !isPlainObject(value)) {
    throw new ScoreSdeError('ERR_CONFIG', `${label}: expected a JSON value, got ${show(value)}`);
  }
  if (depth >= maxDepth) throw tooDeep(label);
  if (Array.isArray(value)) {
    const items = Array.from(value, (item, i) => pythonValue(item, depth + 1, `${label}[${i}]`));
    return indented('[', items, ']', depth);
  }
  const entries = new Map<string, string>();
  for (const [key, item] of Object.entries(value)) {
    if (item !== undefined) entries.set(key, pythonValue(item, depth + 1, `${label}.${key}`));
  }
  return pythonDict(entries, depth);
}

/** An object from its keys and the JSON of their values, sorted by key. */
export function pythonDict(entries: ReadonlyMap<string, string>, depth: number): string {
  const items = [...entries]
    .sort(([a], [b]) => byCodePoint(a, b))
    .map(([key, text]) => `${pythonString(key)}: ${text}`);
  return indented('{', items, '}', depth);
}

function indented(left: string, items: readonly string[], right: string, depth: number): string {
  if (items.length === 0) return left + right;
  const line = `\n${'  '.repeat(depth)}`;
  return `${left}${line}  ${items.join(`,${line}  `)}${line}${right}`;
}

/** A string in ASCII, as json.dumps writes it by default. */
export function pythonString(text: string): string {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Python's repr of a float. Its digits are JavaScript's; the two differ in when they use an exponent, and in "1.0" for "1". */
export function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const [digits, exponent] = value.toExponential().split('e') as [string, string];
  if (Number(exponent) < -4 || Number(exponent) >= 16)
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`;
  const text = Object.is(value, -0) ? '-0' : String(value);
  return text.includes('.') ? text : `${text}.0`;
}

/** Python's order of strings. JavaScript compares UTF-16 units, which puts U+1F600 before U+FF5E. */
function byCodePoint(a: string, b: string): number {
  const left = Array.from(a, (c) => c.codePointAt(0)!);
  const right = Array.from(b, (c) => c.codePointAt(0)!);
  const i = left.findIndex((c, i) => c !== right[i]);
  return i < 0 ? left.length - right.length : left[i]! - (right[i] ?? -1);
}
