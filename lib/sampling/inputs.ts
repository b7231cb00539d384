import { ScoreSdeError } from '../errors';
import type { ModelInput, ModelInputs } from '../models/model';
import { elementsOf, listOf } from '../tensor/arguments';

/** The further inputs of lanes that share a network call, as one call's: each row keeps its own values. */
export function joinedInputs(lanes: readonly { readonly rows: number; readonly inputs: ModelInputs }[]): ModelInputs {
  const [first, ...others] = lanes;
  if (others.length === 0) return first?.inputs ?? {};
  const names = new Set(lanes.flatMap(({ inputs }) => Object.keys(inputs)));
  const joined: Record<string, ModelInput> = {};
  for (const name of names) {
    const values = lanes.map(({ inputs }) => (Object.hasOwn(inputs, name) ? inputs[name] : undefined));
    if (values.some((value) => value === undefined))
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `modelInputs.${name} must be given by all that share a network call, or by none`,
      );
    joined[name] = join(
      name,
      values as ModelInput[],
      lanes.map(({ rows }) => rows),
    );
  }
  return joined;
}

type WithDims = { readonly dims: readonly number[]; readonly data: unknown };

function join(name: string, values: readonly ModelInput[], rows: readonly number[]): ModelInput {
  const isTensor = (value: ModelInput): value is ModelInput & WithDims =>
    value !== null && typeof value === 'object' && 'dims' in value && value.dims.length > 1;
  if (values.every(isTensor)) {
    const shape = values[0]!.dims.slice(1);
    const fits = values.every(({ dims }, i) => dims[0] === rows[i] && String(dims.slice(1)) === String(shape));
    if (fits) {
      const data = values.flatMap((value) => Array.from(elementsOf(value, `modelInputs.${name}`) as number[]));
      return { dims: [rows.reduce((a, b) => a + b, 0), ...shape], data } as unknown as ModelInput;
    }
  } else if (!values.some(isTensor)) {
    return values.flatMap((value, i) => {
      const list = Array.from(listOf(value, `modelInputs.${name}`) ?? []);
      return list.length === 1 ? new Array<unknown>(rows[i]!).fill(list[0]) : list;
    }) as number[];
  }
  if (values.every((value) => value === values[0])) return values[0]!;
  throw new ScoreSdeError('ERR_CONFIG', `modelInputs.${name} of these shapes cannot share a network call`);
}
