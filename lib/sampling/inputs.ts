import { ScoreSdeError } from '../errors';
import type { ModelInput, ModelInputs } from '../models/model';
import { elementsOf, listOf } from '../tensor/arguments';

interface Sharer {
  readonly rows: number;
}

/** A tensor of the inputs. `perSample` is there where a network prepared it. */
interface Like {
  readonly dims: readonly number[];
  readonly data: unknown;
  readonly type?: unknown;
  readonly perSample?: boolean | undefined;
}

/**
 * The further inputs of lanes that share a network call, as one call's: each row keeps its own values.
 * @throws ScoreSdeError ERR_CONFIG where they cannot share one
 */
export function joinedInputs<L extends Sharer>(lanes: readonly L[], inputsOf: (lane: L) => ModelInputs): ModelInputs {
  const inputs = lanes.map(inputsOf);
  const rows = lanes.map((lane) => lane.rows);
  const names = new Set(inputs.flatMap((each) => Object.keys(each)));
  const joined: [string, ModelInput][] = Array.from(names, (name) => {
    const values = inputs.map((each) => (Object.hasOwn(each, name) ? each[name] : undefined));
    if (values.includes(undefined))
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `modelInputs.${name} must be given by all that share a network call, or by none`,
      );
    return [name, join(name, values as ModelInput[], rows)];
  });
  return Object.fromEntries(joined);
}

function join(name: string, values: readonly ModelInput[], rows: readonly number[]): ModelInput {
  const what = `modelInputs.${name}`;
  const likes = values.filter(isTensor);
  if (likes.length === 0) {
    // A number for each row, of lanes that gave one for all or one for each.
    const lists = values.map((value) => Array.from(listOf(value, what) ?? []));
    if (lists.every((list, i) => list.length === rows[i] || list.length === 1))
      return lists.flatMap((list, i) =>
        list.length === rows[i] ? list : new Array<unknown>(rows[i]!).fill(list[0]),
      ) as number[];
  } else if (likes.length === values.length) {
    const [first] = likes;
    const shape = first!.dims.slice(1);
    const isEach = ({ dims, perSample = true }: Like, i: number) => perSample && dims[0] === rows[i];
    const elements = likes.map((like) => elementsOf(like, what));
    if (likes.every((like, i) => isEach(like, i) && sameSizes(like.dims.slice(1), shape)))
      return { dims: [rows.reduce((a, b) => a + b, 0), ...shape], data: concatenated(elements) };
    if (likes.every(({ dims }, i) => sameSizes(dims, first!.dims) && sameElements(elements[i]!, elements[0]!)))
      return values[0]!;
  }
  throw new ScoreSdeError('ERR_CONFIG', `${what} of these shapes cannot share a network call`);
}

/** Whether a value has axes beside that of the samples. */
function isTensor(value: unknown): value is ModelInput & Like {
  return value !== null && typeof value === 'object' && 'dims' in value && (value as Like).dims.length > 1;
}

function sameSizes(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

function sameElements(a: ArrayLike<unknown>, b: ArrayLike<unknown>): boolean {
  return a === b || (a.length === b.length && Array.prototype.every.call(a, (value, i) => Object.is(value, b[i])));
}

type Numbers = ArrayLike<unknown> & { set?(values: ArrayLike<unknown>, at: number): void };

/** Arrays one after the other: a typed array where they are all of its class, else an array. */
function concatenated(parts: readonly Numbers[]): Numbers {
  const Class = parts[0]!.constructor as new (length: number) => Numbers;
  if (!ArrayBuffer.isView(parts[0]) || parts.some((part) => part.constructor !== Class))
    return parts.flatMap((part) => Array.from(part));
  const all = new Class(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set!(part, at);
    at += part.length;
  }
  return all;
}

/** The inputs of some of the samples of a batch, whose network calls are their own. */
export function inputsOfRows(inputs: ModelInputs, first: number, count: number, rows: number): ModelInputs {
  const part = (value: ModelInput): unknown => {
    if (Array.isArray(value) || (ArrayBuffer.isView(value) && 'length' in value)) {
      const list = value as unknown[];
      return list.length === rows ? list.slice(first, first + count) : list;
    }
    if (value === null || typeof value !== 'object' || !('dims' in value)) return value;
    const { dims, data, type } = value as Like;
    if (dims[0] !== rows || !isSliceable(data)) return value;
    const each = data.length / rows;
    return { type, dims: [count, ...dims.slice(1)], data: data.slice(first * each, (first + count) * each) };
  };
  return Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, part(value)])) as ModelInputs;
}

function isSliceable(data: unknown): data is Float32Array {
  return Array.isArray(data) || (ArrayBuffer.isView(data) && 'slice' in data);
}
