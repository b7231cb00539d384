import { create, toBinary } from '@bufbuild/protobuf';
import { transformFileSync } from '@swc/core';
import type * as Onnx from 'onnx-buf' with { 'resolution-mode': 'import' };
import * as ort from 'onnxruntime-node';
import type { ModelSpec } from './models';

// onnx-buf is an ES module, which jest cannot load before Node 24.9: compiled here, it serves as any other.
export const { ModelProtoSchema, TensorProtoSchema } = ((): typeof Onnx => {
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

/** Writes a network of ONNX ir 8, opset 17, node by node: each gives the name of its output. */
class GraphWriter {
  readonly #nodes: { opType: string; input: string[]; output: string[]; attribute?: object[] }[] = [];
  readonly #constants: object[] = [];

  add(opType: string, input: string[], attribute?: object[]): string {
    const output = `${opType}_${this.#nodes.length}`;
    this.#nodes.push({ opType, input, output: [output], attribute });
    return output;
  }

  constant(dataType: OnnxType, values: readonly number[], dims: readonly number[], more: object = {}): string {
    const name = `constant_${this.#constants.length}`;
    const data =
      dataType === 'int64'
        ? { int64Data: values.map(BigInt) }
        : dataType === 'float64'
          ? { doubleData: [...values] }
          : { floatData: [...values] };
    this.#constants.push({ name, dataType: types[dataType], dims: dims.map(BigInt), ...data, ...more });
    return name;
  }

  cast(type: OnnxType, input: string): string {
    return this.add('Cast', [input], [{ name: 'to', type: 2, i: BigInt(types[type]) }]);
  }

  reshape(input: string, dims: readonly number[]): string {
    return this.add('Reshape', [input, this.constant('int64', dims, [dims.length])]);
  }

  /** The value as an output. */
  output(value: string, { name, type }: GraphPort): void {
    this.cast(type, value);
    this.#nodes.at(-1)!.output = [name];
  }

  bytes(inputs: readonly GraphPort[], outputs: readonly GraphPort[]): Uint8Array {
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
        node: this.#nodes,
        initializer: this.#constants,
        input: inputs.map(valueInfo),
        output: outputs.map(valueInfo),
      },
    });
    return toBinary(ModelProtoSchema, model);
  }
}

/**
 * score = -sample / (1 + timestep^2) + sum_i 10^i input_i over the further inputs, in float32 whatever the types of the
 * ports.
 */
export function scoreGraph({
  inputs = [states, port('timestep')],
  outputs = [port('out_sample', 'float32', inputs[0]!.dims)],
  sample = 'sample',
  timestep = 'timestep',
  reshape,
}: Graph = {}): Uint8Array {
  const graph = new GraphWriter();
  const state = inputs.find(({ name }) => name === sample)!;
  const row = state.dims.map((_, axis) => (axis === 0 ? -1 : 1));
  const valueOf = ({ name, dims }: GraphPort) => {
    const value = graph.cast('float32', name);
    return dims.length < state.dims.length ? graph.reshape(value, row) : value;
  };

  let score = graph.add('Neg', [graph.cast('float32', sample)]);
  const sigma = inputs.find(({ name }) => name === timestep);
  if (sigma) {
    const t = valueOf(sigma);
    score = graph.add('Div', [score, graph.add('Add', [graph.constant('float32', [1], []), graph.add('Mul', [t, t])])]);
  }
  inputs
    .filter((input) => input !== state && input !== sigma)
    .forEach((input, i) => {
      const term = graph.add('Mul', [graph.constant('float32', [10 ** i], []), valueOf(input)]);
      score = graph.add('Add', [score, term]);
    });
  if (reshape) score = graph.reshape(score, reshape);
  outputs.forEach((output, i) => graph.output(i === 0 ? score : graph.add('Sub', [score, score]), output));
  return graph.bytes(inputs, outputs);
}

/** The formulas of support/models as networks over states of these dims. */
export function formulaGraph(spec: ModelSpec, shape: readonly number[]): Uint8Array {
  const graph = new GraphWriter();
  const dims = ['batch', ...shape];
  const row = dims.map((_, axis) => (axis === 0 ? -1 : 1));
  const number = (value: number) => graph.constant('float32', [value], []);
  const t = graph.reshape('timestep', row);
  const op = (type: string) => (a: string, b: string) => graph.add(type, [a, b]);
  const [plus, minus, times, over] = [op('Add'), op('Sub'), op('Mul'), op('Div')];
  const formulas: Record<string, () => string> = {
    toy: () => over(times('sample', t), plus(t, number(1))),
    lin: () => over(graph.add('Neg', ['sample']), plus(number(1), times(t, t))),
    gauss: () => over(minus(number(spec.mu!), 'sample'), plus(number(0.01), times(t, t))),
    // sum_k r_k (mu_k - x) / v_k with r = softmax(log(w_k / v_k) - |x - mu_k|^2 / (2 v_k)), in double.
    gmm: () => {
      const count = spec.stds!.length;
      const list = (values: readonly number[], by: readonly number[]) => graph.constant('float64', values, by);
      const x = graph.reshape(graph.cast('float64', 'sample'), [-1, 1, 2]);
      const sigma = graph.reshape(graph.cast('float64', 'timestep'), [-1, 1]);
      const variance = plus(
        times(sigma, sigma),
        list(
          spec.stds!.map((sd) => sd * sd),
          [1, count],
        ),
      );
      const away = minus(list(spec.means!.flat(), [1, count, 2]), x);
      const axes = graph.constant('int64', [2], [1]);
      const distance = graph.add('ReduceSum', [times(away, away), axes], [{ name: 'keepdims', type: 2, i: 0n }]);
      const logit = minus(
        graph.add('Log', [over(list(spec.weights!, [1, count]), variance)]),
        over(distance, times(list([2], []), variance)),
      );
      const weight = over(graph.add('Softmax', [logit]), variance);
      const each = times(graph.reshape(weight, [-1, count, 1]), away);
      const total = graph.add(
        'ReduceSum',
        [each, graph.constant('int64', [1], [1])],
        [{ name: 'keepdims', type: 2, i: 0n }],
      );
      return graph.reshape(total, [-1, ...shape]);
    },
  };
  const outputs = [port('out_sample', 'float32', dims)];
  graph.output(formulas[spec.name]!(), outputs[0]!);
  return graph.bytes([port('sample', 'float32', dims), port('timestep')], outputs);
}

/** score = -sample log(timestep), where the logarithm is taken of the [batch] vector, as NCSN++ does. */
export function logarithmGraph(shape: readonly number[]): Uint8Array {
  const graph = new GraphWriter();
  const dims = ['batch', ...shape];
  const log = graph.reshape(graph.add('Log', ['timestep']), [-1, ...shape.map(() => 1)]);
  const output = port('out_sample', 'float32', dims);
  graph.output(graph.add('Mul', [graph.add('Neg', ['sample']), log]), output);
  return graph.bytes([port('sample', 'float32', dims), port('timestep')], [output]);
}

/** score = -sample log(mean(sample^2)) / timestep, the logarithm of a [batch] vector, for batches free or fixed. */
export function meanLogarithmGraph(timestep: GraphPort, batch: number | string, shape: readonly number[]): Uint8Array {
  const graph = new GraphWriter();
  const dims = [batch, ...shape];
  const flat = graph.reshape('sample', [-1, shape.reduce((a, b) => a * b)]);
  const axes = [
    { name: 'axes', type: 7, ints: [1n] },
    { name: 'keepdims', type: 2, i: 0n },
  ];
  const log = graph.add('Log', [graph.add('ReduceMean', [graph.add('Mul', [flat, flat])], axes)]);
  const row = shape.map(() => 1);
  const score = graph.add('Mul', [graph.add('Neg', ['sample']), graph.reshape(log, [-1, ...row])]);
  const output = port('out_sample', 'float32', dims);
  const sigma = timestep.dims.length === 0 ? 'timestep' : graph.reshape('timestep', [-1, ...row]);
  graph.output(graph.add('Div', [score, sigma]), output);
  return graph.bytes([port('sample', 'float32', dims), timestep], [output]);
}

/** score = -log(sample^2 + 1) / timestep, element by element. */
export function elementLogarithmGraph(shape: readonly number[]): Uint8Array {
  const graph = new GraphWriter();
  const dims = ['batch', ...shape];
  const square = graph.add('Add', [graph.add('Mul', ['sample', 'sample']), graph.constant('float32', [1], [])]);
  const score = graph.add('Neg', [graph.add('Log', [square])]);
  const output = port('out_sample', 'float32', dims);
  graph.output(graph.add('Div', [score, graph.reshape('timestep', [-1, ...shape.map(() => 1)])]), output);
  return graph.bytes([port('sample', 'float32', dims), port('timestep')], [output]);
}

/** score = -sample sqrt(timestep - 1): not a number below 1. */
export function rootGraph(shape: readonly number[]): Uint8Array {
  const graph = new GraphWriter();
  const dims = ['batch', ...shape];
  const level = graph.reshape('timestep', [-1, ...shape.map(() => 1)]);
  const root = graph.add('Sqrt', [graph.add('Sub', [level, graph.constant('float32', [1], [])])]);
  const output = port('out_sample', 'float32', dims);
  graph.output(graph.add('Mul', [graph.add('Neg', ['sample']), root]), output);
  return graph.bytes([port('sample', 'float32', dims), port('timestep')], [output]);
}

/** score = M^n (-sample / timestep) for the square identity matrix M: as long as many products of matrices take. */
export function slowGraph(size: number, products: number, batch: number | string = 'batch'): Uint8Array {
  const graph = new GraphWriter();
  const dims = [batch, 1, size, size];
  const identity = graph.constant(
    'float32',
    Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0)),
    [size, size],
  );
  let score = graph.add('Div', [graph.add('Neg', ['sample']), graph.reshape('timestep', [-1, 1, 1, 1])]);
  for (let i = 0; i < products; i++) score = graph.add('MatMul', [identity, score]);
  const output = port('out_sample', 'float32', dims);
  graph.output(score, output);
  return graph.bytes([port('sample', 'float32', dims), port('timestep', 'float32', [batch])], [output]);
}

/** score = sample * weight, where the weight is the first number of another file, or the product of those of several. */
export function externalGraph(locations: string | readonly string[], shape: readonly number[]): Uint8Array {
  const graph = new GraphWriter();
  const dims = ['batch', ...shape];
  const weightIn = (location: string) =>
    graph.constant('float32', [], [1], {
      floatData: [],
      dataLocation: 1,
      externalData: [
        { key: 'location', value: location },
        { key: 'offset', value: '0' },
        { key: 'length', value: '4' },
      ],
    });
  const ones = graph.reshape(graph.add('Div', ['timestep', 'timestep']), [-1, ...shape.map(() => 1)]);
  const output = port('out_sample', 'float32', dims);
  const score = [locations].flat().reduce((x, location) => graph.add('Mul', [x, weightIn(location)]), 'sample');
  graph.output(graph.add('Mul', [score, ones]), output);
  return graph.bytes([port('sample', 'float32', dims), port('timestep')], [output]);
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

/** What a network of the test's own gives and is told. */
export interface GraphKind {
  gives?: 'score' | 'denoised' | 'noise' | 'v_prediction';
  told?: 'sigma' | 'log_sigma' | 'log_sigma_quarter' | { t: readonly [number, number] } | { tutorial: number };
  /** The element type of `timestep`. */
  type?: OnnxType;
  /** Mean and standard deviation of the data, which are normal. */
  mean?: number;
  deviation?: number;
}

/** The exact network of normal data, of a kind: D = (x v + mean sigma^2) / (v + sigma^2), v the data's variance. */
export function kindGraph(
  shape: readonly number[],
  { gives = 'score', told = 'sigma', type = 'float32', mean = 0.5, deviation = 0.3 }: GraphKind,
): Uint8Array {
  const graph = new GraphWriter();
  const dims = ['batch', ...shape];
  const number = (value: number) => graph.constant('float32', [value], []);
  const op = (kind: string) => (a: string, b: string) => graph.add(kind, [a, b]);
  const [plus, minus, times, over] = [op('Add'), op('Sub'), op('Mul'), op('Div')];
  const exp = (value: string) => graph.add('Exp', [value]);
  const t = graph.reshape(
    graph.cast('float32', 'timestep'),
    dims.map((_, axis) => (axis === 0 ? -1 : 1)),
  );
  const sigmaOf = (): string => {
    if (told === 'sigma') return t;
    if (told === 'log_sigma') return exp(t);
    if (told === 'log_sigma_quarter') return exp(times(number(4), t));
    if ('t' in told) {
      const [low, high] = told.t;
      return exp(plus(number(Math.log(low)), times(number(Math.log(high / low)), t)));
    }
    // sigma^2 = (s^(2 t) - 1) / (2 ln s)
    const log = Math.log(told.tutorial);
    return graph.add('Sqrt', [over(minus(exp(times(number(2 * log), t)), number(1)), number(2 * log))]);
  };
  const sigma = sigmaOf();
  const variance = times(sigma, sigma);
  // 1 / alpha = sqrt(1 + sigma^2), by which a network of v sees x divided.
  const alpha = over(number(1), graph.add('Sqrt', [plus(number(1), variance)]));
  const x = gives === 'v_prediction' ? over('sample', alpha) : 'sample';
  const v = number(deviation ** 2);
  const D = over(plus(times(x, v), times(number(mean), variance)), plus(v, variance));
  const output = {
    score: () => over(minus(D, x), variance),
    denoised: () => D,
    noise: () => over(minus(x, D), sigma),
    v_prediction: () => over(minus(times(times(alpha, alpha), x), D), times(alpha, sigma)),
  }[gives]();
  graph.output(output, port('out_sample', 'float32', dims));
  return graph.bytes([port('sample', 'float32', dims), port('timestep', type)], [port('out_sample', 'float32', dims)]);
}
