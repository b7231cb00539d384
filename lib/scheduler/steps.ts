import { ScoreSdeError } from '../errors';
import { assertOptions, show } from '../options';
import {
  Dtype,
  NoiseKind,
  Row,
  RowKind,
  RowNormals,
  StepSizeCode,
  type Native,
  type Noise,
  type StepSize,
} from '../native/abi';
import { KernelCall, type Call } from '../native/call';
import { bufferOf, DeviceMemory, placeOf } from '../native/memory';
import type { Access } from '../native/order';
import { Generator, generatorsOf, planRandn } from '../random/generator';
import {
  assertOnePlace,
  assertOutputs,
  assertSameDims,
  batchShape,
  bytesPerElement,
  operand,
  target,
  type Operand,
  type Target,
} from '../tensor/operand';
import type { Tensor, TensorLike } from '../tensor/tensor';
import { assertPerRow, indicesOf, numbersOf, type PerSample } from '../tensor/arguments';
import { adjacentSigma, indexOf, type Schedule } from './schedule';

/** Where the normals of a step come from: the draw itself, or generators; the default generator without either. */
export interface NoiseOptions {
  /** One generator, which draws the batch at once, or one a sample. */
  generator?: Generator | readonly Generator[] | undefined;
  /** The draw itself, with the dims of `sample`. */
  noise?: TensorLike | undefined;
  /** Where the result goes: float32, float16 or bfloat16; `sample` itself for in place. A new float32 tensor unless given. */
  out?: TensorLike | undefined;
}

/** Options of the steps. Both take all of them, so that they may share an object, and each reads its own. */
export interface StepOptions extends NoiseOptions {
  /** Of the predictor: where the mean goes. */
  outMean?: TensorLike | undefined;
  /** Of the predictor: false leaves the mean out, and a quarter of the memory traffic. */
  returnMean?: boolean | undefined;
  /**
   * Of the corrector: how the step is measured. 'batch' (default, the reference): from the means of the norms over the
   * batch. 'sample': from each sample's own norms. 'dim': own gradient norm, noise norm taken as sqrt(d). 'ald':
   * 2 (snr sigma)^2.
   */
  stepSize?: StepSize | undefined;
  /** Of the corrector: the noise level of 'ald', one for all or one a sample. */
  sigma?: PerSample | undefined;
  /** false returns an array, as the reference's tuple: [prevSample, prevSampleMean], or [prevSample]. */
  returnDict?: boolean | undefined;
}

const stepOptions = [
  'generator',
  'noise',
  'out',
  'outMean',
  'returnMean',
  'stepSize',
  'sigma',
  'returnDict',
] as const satisfies (keyof StepOptions)[];

/** A checked step, and where its results will be. */
export interface Plan<Result> {
  call: KernelCall<'step'>;
  result: Result;
}

/** What an update reads and writes beside its noise. */
interface UpdateOperands {
  x: Operand;
  m?: Operand;
  out: Operand;
  mean?: Operand | undefined;
}

interface NoisePlan {
  take(): Noise;
  inputs: Operand[];
  states: object[];
  /** On a device, where a serial stream is drawn on the host: the draw, and the end of the memory that it went to. */
  before?: Call<unknown> | undefined;
  after?: (() => void) | undefined;
}

/** What the normals of a step come from, checked: the draw itself, or generators. */
function noiseSource(
  noise: TensorLike | undefined,
  generator: NoiseOptions['generator'],
  like: Operand,
): { given: Operand[]; generators: readonly Generator[] } {
  if (noise === undefined) return { given: [], generators: generatorsOf(generator, batchShape(like).rows) };
  if (generator !== undefined)
    throw new ScoreSdeError('ERR_CONFIG', 'noise and generator were both given: the draw comes from one of them');
  const given = operand(noise, 'noise');
  assertSameDims(given, like);
  return { given: [given], generators: [] };
}

/** Last of a plan: a step that is refused takes no memory. */
function planNoise(source: ReturnType<typeof noiseSource>, like: Operand, drawn: Dtype): NoisePlan {
  const [given] = source.given;
  if (given) return { take: () => [NoiseKind.given, given.memory, given.type], inputs: [given], states: [] };
  const { generators } = source;
  const { rows, cols } = batchShape(like);
  if (like.memory instanceof DeviceMemory && generators[0]!.engine === 'torch') {
    const { device, length } = like.memory;
    const memory = DeviceMemory.allocate(device, length, bytesPerElement(drawn));
    const noise = { ...like, name: 'noise', memory, type: drawn };
    return {
      take: () => [NoiseKind.given, memory, drawn],
      inputs: [noise],
      states: [],
      before: planRandn(generators, noise, { rows, cols }),
      after: () => memory.release(),
    };
  }
  return {
    take: () => Generator.reserve(generators, rows, cols, drawn),
    inputs: [],
    states: Generator.memory(generators),
  };
}

function accessOf({ x, m, out, mean }: UpdateOperands, { inputs, states }: NoisePlan): Access {
  const access: Access = { reads: [bufferOf(x.memory)], writes: [bufferOf(out.memory)] };
  if (m) access.reads.push(bufferOf(m.memory));
  if (mean) access.writes.push(bufferOf(mean.memory));
  for (const { memory } of inputs) access.reads.push(bufferOf(memory));
  for (const state of states) access.writes.push(state);
  return access;
}

/**
 * Where results go: the caller's memory, checked against the inputs and one another, or new tensors where the sample lies,
 * which are made once all is known to be right.
 */
function outputsOf(
  options: StepOptions,
  x: Operand,
  inputs: Operand[],
  withMean = false,
): { out: Target; mean?: Target | undefined } {
  let out = options.out === undefined ? undefined : target(options.out, x, 'out');
  let mean = options.outMean === undefined || !withMean ? undefined : target(options.outMean, x, 'outMean');
  const given: Operand[] = [];
  if (out) given.push(out.operand);
  if (mean) given.push(mean.operand);
  assertOnePlace(inputs, given);
  assertOutputs(given, inputs);
  const place = { device: placeOf(x.memory) };
  out ??= target(undefined, x, 'out', place);
  if (withMean) mean ??= target(undefined, x, 'outMean', place);
  return { out, mean };
}

/** What the rows do, and their coefficients: a number for all rows, or one for each. */
interface Update {
  kind: RowKind;
  stepSize: number;
  sigma: readonly number[];
  next: readonly number[];
  snr: number;
  e: readonly number[];
}

const zero = [0];

function assertStepOptions(options: StepOptions): void {
  assertOptions(options, stepOptions);
  const { returnDict, returnMean } = options;
  for (const flag of [returnDict, returnMean])
    if (flag !== undefined && typeof flag !== 'boolean')
      throw new ScoreSdeError('ERR_CONFIG', `returnDict and returnMean must be booleans, got ${show(flag)}`);
}

/** Records in which the places that no Update has are as RowStep of native/core/params.hpp begins. */
function newRecords(count: number): Float32Array {
  const records = new Float32Array(count * Row.size);
  for (let at = 0; at < records.length; at += Row.size) records[at + Row.a] = 1;
  return records;
}

// The addon copies records when it is called, so that these serve every call: one for all rows, or one each. A new array
// would take Node a microsecond.
const one = newRecords(1);
let each = newRecords(0);

function areEqual(values: readonly number[]): boolean {
  for (let i = 1; i < values.length; i++) if (values[i] !== values[0]) return false;
  return true;
}

/** Writes the records of an update of so many rows. They are good until the next call of this function. */
function recordsOf({ kind, stepSize, sigma, next, snr, e }: Update, rows: number, normals: RowNormals): Float32Array {
  const count = areEqual(sigma) && areEqual(next) && areEqual(e) ? 1 : rows;
  if (count > 1 && each.length < rows * Row.size) each = newRecords(rows);
  const records = count === 1 ? one : each;
  for (let row = 0, at = 0; row < count; row++, at += Row.size) {
    records[at + Row.kind] = kind;
    records[at + Row.normals] = normals;
    records[at + Row.stepSize] = stepSize;
    records[at + Row.sigma] = sigma[sigma.length === 1 ? 0 : row]!;
    records[at + Row.next] = next[next.length === 1 ? 0 : row]!;
    records[at + Row.snr] = snr;
    records[at + Row.e] = e[e.length === 1 ? 0 : row]!;
  }
  return records;
}

/** The call of an update. A small step takes some microseconds, of which each spread of a list would be a tenth. */
function planUpdate(method: string, update: Update, operands: UpdateOperands, noise: NoisePlan): KernelCall<'step'> {
  const { x, m, out, mean } = operands;
  const { rows, cols } = batchShape(x);
  const normals = noise.inputs.length > 0 ? RowNormals.given : RowNormals.drawn;
  const args = () => {
    const [kind, source, drawn] = noise.take();
    const records = recordsOf(update, rows, normals);
    const [score, type] = m ? [m.memory, m.type] : [null, Dtype.float32];
    const list = [rows, cols, records, x.memory, x.type, score, type, kind, source, drawn, out.memory, out.type];
    if (mean) list.push(mean.memory, mean.type);
    return list as Parameters<Native['step']>;
  };
  return new KernelCall('step', args, accessOf(operands, noise), { method, before: noise.before, after: noise.after });
}

/** The predictor: a step of the reverse diffusion SDE (Song et al. 2021, algorithm 2, eq. 46). */
export function planStepPred(
  schedule: Schedule,
  modelOutput: TensorLike,
  timestep: PerSample,
  sample: TensorLike,
  options: StepOptions,
): Plan<{ prevSample: Tensor; prevSampleMean: Tensor | undefined }> {
  assertStepOptions(options);
  const x = operand(sample, 'sample');
  const m = operand(modelOutput, 'modelOutput');
  assertSameDims(m, x);
  const { rows } = batchShape(x);
  const { discreteSigmas } = schedule;
  const sigma: number[] = [];
  const next: number[] = [];
  for (const t of numbersOf(timestep, rows, 'timestep')) {
    const index = indexOf(schedule, t);
    sigma.push(discreteSigmas[index]!);
    next.push(adjacentSigma(discreteSigmas, index));
  }
  if (options.returnMean === false && options.outMean !== undefined)
    throw new ScoreSdeError('ERR_CONFIG', 'outMean was given and returnMean is false: is the mean wanted?');
  const source = noiseSource(options.noise, options.generator, x);
  const { out, mean } = outputsOf(options, x, [x, m, ...source.given], options.returnMean !== false);
  const noise = planNoise(source, x, x.type);
  const update = { kind: RowKind.predict, stepSize: 0, sigma, next, snr: 0, e: zero };
  const operands = { x, m, out: out.operand, mean: mean?.operand };
  const call = planUpdate('stepPred', update, operands, noise);
  return { call, result: { prevSample: out.tensor, prevSampleMean: mean?.tensor } };
}

/** The sigmas of 'ald'. ERR_CONFIG where there are none, ERR_RANGE where one is no noise level. */
function noiseLevels(sigma: PerSample | undefined, rows: number): number[] {
  if (sigma === undefined)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      "stepSize 'ald' needs sigma, a number or one for each sample, in the options",
    );
  const levels = numbersOf(sigma, rows, 'sigma');
  const wrong = levels.find((level) => !(level >= 0 && level < Infinity));
  if (wrong !== undefined) throw new ScoreSdeError('ERR_RANGE', `sigma must be finite and not negative, got ${wrong}`);
  return levels;
}

/** The corrector: a step of Langevin dynamics (Song et al. 2021, algorithm 4). */
export function planStepCorrect(
  snr: number,
  modelOutput: TensorLike,
  sample: TensorLike,
  options: StepOptions,
): Plan<{ prevSample: Tensor }> {
  assertStepOptions(options);
  const x = operand(sample, 'sample');
  const m = operand(modelOutput, 'modelOutput');
  assertSameDims(m, x);
  const { rows } = batchShape(x);
  if (rows === 0) throw new ScoreSdeError('ERR_SHAPE', 'sample must not be an empty batch: it has no norm to measure');
  const { stepSize = 'batch' } = options;
  if (typeof stepSize !== 'string' || !Object.hasOwn(StepSizeCode, stepSize))
    throw new ScoreSdeError('ERR_CONFIG', `stepSize must be 'batch', 'sample', 'dim' or 'ald', got ${show(stepSize)}`);
  const sigma = stepSize === 'ald' ? noiseLevels(options.sigma, rows) : zero;
  const source = noiseSource(options.noise, options.generator, x);
  const { out } = outputsOf(options, x, [x, m, ...source.given]);
  const noise = planNoise(source, x, Dtype.float32);
  const update = { kind: RowKind.correct, stepSize: StepSizeCode[stepSize], sigma, next: zero, snr, e: zero };
  const call = planUpdate('stepCorrect', update, { x, m, out: out.operand }, noise);
  return { call, result: { prevSample: out.tensor } };
}

/** A sample of the perturbation kernel: original + noise * discreteSigmas[index]. */
export function planAddNoise(
  discreteSigmas: Float32Array,
  original: TensorLike,
  noise: TensorLike | null | undefined,
  indices: unknown,
  options: Omit<NoiseOptions, 'noise'>,
): Plan<Tensor> {
  assertOptions(options, ['generator', 'out']);
  const x = operand(original, 'original');
  if (x.dims.length !== 4)
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `original must have four dims, as [batch, channels, height, width], got [${x.dims.join(', ')}]`,
    );
  const { rows } = batchShape(x);
  const list = indicesOf(indices, 'timesteps');
  assertPerRow(list, rows, 'timesteps');
  const levels = list.map((index) => {
    const sigma = discreteSigmas.at(index);
    if (sigma === undefined)
      throw new ScoreSdeError(
        'ERR_RANGE',
        `timesteps must index the table of ${discreteSigmas.length} sigmas, got ${index}`,
      );
    return sigma;
  });
  const source = noiseSource(noise ?? undefined, options.generator, x);
  const { out } = outputsOf(options, x, [x, ...source.given]);
  const drawn = planNoise(source, x, x.type);
  const update = { kind: RowKind.linear, stepSize: 0, sigma: zero, next: zero, snr: 0, e: levels };
  const call = planUpdate('addNoise', update, { x, out: out.operand }, drawn);
  return { call, result: out.tensor };
}
