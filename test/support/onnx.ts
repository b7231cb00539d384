import { create, toBinary } from '@bufbuild/protobuf';
import { transformFileSync } from '@swc/core';
import type * as Onnx from 'onnx-buf' with { 'resolution-mode': 'import' };
import * as ort from 'onnxruntime-node';

// onnx-buf is an ES module, which jest cannot load before Node 24.9: compiled here, it serves as any other.
const { ModelProtoSchema } = ((): typeof Onnx => {
  const { code } = transformFileSync(require.resolve('onnx-buf'), { module: { type: 'commonjs' } });
  const exports = {};
  // eslint-disable-next-line @typescript-eslint/no-implied-eval
  new Function('exports', 'require', code)(exports, require);
  return exports as typeof Onnx;
})();

/** onnxruntime's names of the element types, and their numbers in a file. */
const types = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
};
export type OnnxType = keyof typeof types;

export interface GraphPort {
  name: string;
  type: OnnxType;
  /** Sizes, and names of those that are free ('' for one without a name). */
  dims: readonly (number | string)[];
}

export const port = (name: string, type: OnnxType = 'float32', dims: GraphPort['dims'] = ['batch']): GraphPort => ({
  name,
  type,
  dims,
});

/** The states of a graph unless it says otherwise. */
export const states = port('sample', 'float32', ['batch', 1, 2, 2]);

export interface Graph {
  /** In the order of the model's metadata; `sample` and `timestep` unless given. */
  inputs?: readonly GraphPort[];
  /** The score, and others that are zero. */
  outputs?: readonly GraphPort[];
  /** Which input takes the states, and which takes sigma. */
  sample?: string;
  timestep?: string;
  /** The dims of the score, -1 for what is left: to return what does not fit, or to fail. */
  reshape?: readonly number[];
}

/**
 * A network of ONNX ir 8, opset 17: score = -sample / (1 + timestep^2) + sum_i 10^i input_i over the further inputs, in
 * float32 whatever the types of the ports.
 */
export function scoreGraph({
  inputs = [states, port('timestep')],
  outputs = [port('out_sample', 'float32', inputs[0]!.dims)],
  sample = 'sample',
  timestep = 'timestep',
  reshape,
}: Graph = {}): Uint8Array {
  const nodes: { opType: string; input: string[]; output: string[]; attribute?: object[] }[] = [];
  const constants: object[] = [];
  const add = (opType: string, ...input: string[]): string => {
    const output = `${opType}_${nodes.length}`;
    nodes.push({ opType, input, output: [output] });
    return output;
  };
  const constant = (dataType: OnnxType, values: readonly number[], dims: number[]): string => {
    const name = `constant_${constants.length}`;
    const data = dataType === 'int64' ? { int64Data: values.map(BigInt) } : { floatData: values };
    constants.push({ name, dataType: types[dataType], dims: dims.map(BigInt), ...data });
    return name;
  };
  const castTo = (type: OnnxType, input: string): string => {
    const output = add('Cast', input);
    nodes.at(-1)!.attribute = [{ name: 'to', type: 2, i: BigInt(types[type]) }];
    return output;
  };
  const reshaped = (input: string, dims: readonly number[]) =>
    add('Reshape', input, constant('int64', dims, [dims.length]));

  const state = inputs.find(({ name }) => name === sample)!;
  const row = state.dims.map((_, axis) => (axis === 0 ? -1 : 1));
  const valueOf = ({ name, dims }: GraphPort) => {
    const value = castTo('float32', name);
    return dims.length < state.dims.length ? reshaped(value, row) : value;
  };

  let score = add('Neg', castTo('float32', sample));
  const sigma = inputs.find(({ name }) => name === timestep);
  if (sigma) {
    const t = valueOf(sigma);
    score = add('Div', score, add('Add', constant('float32', [1], []), add('Mul', t, t)));
  }
  inputs
    .filter((input) => input !== state && input !== sigma)
    .forEach((input, i) => {
      score = add('Add', score, add('Mul', constant('float32', [10 ** i], []), valueOf(input)));
    });
  if (reshape) score = reshaped(score, reshape);
  outputs.forEach(({ name, type }, i) => {
    castTo(type, i === 0 ? score : add('Sub', score, score));
    nodes.at(-1)!.output = [name];
  });

  const valueInfo = ({ name, type, dims }: GraphPort) => ({
    name,
    type: {
      value: {
        case: 'tensorType' as const,
        value: {
          elemType: types[type],
          shape: {
            dim: dims.map((dim) => ({
              value:
                typeof dim === 'number'
                  ? { case: 'dimValue' as const, value: BigInt(dim) }
                  : { case: 'dimParam' as const, value: dim },
            })),
          },
        },
      },
    },
  });
  const model = create(ModelProtoSchema, {
    irVersion: 8n,
    opsetImport: [{ domain: '', version: 17n }],
    graph: {
      name: 'score',
      node: nodes,
      initializer: constants,
      input: inputs.map(valueInfo),
      output: outputs.map(valueInfo),
    },
  });
  return toBinary(ModelProtoSchema, model);
}

const quiet = { logSeverityLevel: 4 } as const;
const open = new Set<ort.InferenceSession>();

/** A session of a graph, until closeSessions. */
export async function sessionOf(graph: Graph | Uint8Array = {}): Promise<ort.InferenceSession> {
  const session = await ort.InferenceSession.create(graph instanceof Uint8Array ? graph : scoreGraph(graph), quiet);
  open.add(session);
  return session;
}

export async function closeSessions(): Promise<void> {
  for (const session of open) await session.release().catch(() => {});
  open.clear();
}
