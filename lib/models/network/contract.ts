import { exportingPage, ScoreSdeError } from '../../errors';
import { show } from '../../options';
import { assertInputs, type ModelInput, type ModelInputs, type Parameterization } from '../model';
import { checkedKind, kindOptions, type CheckedKind, type NetworkKind } from './kind';
import {
  assertFits,
  feed,
  feedPerSample,
  isFloat,
  isInteger,
  isPerSample,
  oneHot,
  portsText,
  type BatchRules,
  type Feed,
  type Port,
} from './port';

/** The roles of a network's inputs and outputs, where their names do not tell. */
export interface NetworkOptions extends NetworkKind {
  /** The input for the states. Default: 'sample', else the only one whose type and rank fit. */
  sample?: string | undefined;
  /** The input for sigma. Default: 'timestep', else the only one whose type and shape fit. */
  timestep?: string | undefined;
  /** The output with the score. Default: 'out_sample', else the only output. */
  output?: string | undefined;
  /** Values of further inputs, by name, for runs that do not give them. */
  defaultInputs?: ModelInputs | undefined;
  /** How many classes the whole numbers of an input class_labels stand for: 0 to classes - 1. Default: any from 0 on. */
  classes?: number | undefined;
}

export const networkOptions = ['sample', 'timestep', 'output', 'defaultInputs', 'classes', ...kindOptions] as const;

/** The options of a network, checked. */
export interface CheckedNetwork extends Omit<NetworkOptions, keyof NetworkKind>, CheckedKind {}

/**
 * Checks the options of a network, and copies them: what is changed in them later changes nothing.
 * @throws ScoreSdeError ERR_CONFIG, ERR_RANGE
 */
export function checkedNetwork(options: NetworkOptions): CheckedNetwork {
  const { sample, timestep, output, defaultInputs, classes } = options;
  for (const [role, name] of Object.entries({ sample, timestep, output }))
    if (name !== undefined && typeof name !== 'string')
      throw new ScoreSdeError('ERR_CONFIG', `${role} must be a name of the network's, got ${show(name)}`);
  if (defaultInputs !== undefined) assertInputs(defaultInputs, 'defaultInputs');
  if (classes !== undefined && !(Number.isSafeInteger(classes) && classes > 0))
    throw new ScoreSdeError('ERR_RANGE', `classes must be an integer from 1 on, got ${show(classes)}`);
  return { sample, timestep, output, defaultInputs: { ...defaultInputs }, classes, ...checkedKind(options) };
}

/** The input for classes, by diffusers' name. */
const classLabels = 'class_labels';

/** The largest batch size that a network may fix. */
const maxBatch = 2 ** 12;

type Role = 'sample' | 'timestep' | 'output';

/** The port with the `named` name, else with the `usual` one, else the only one that a rule allows; the first such rule counts. ERR_MODEL. */
function choose(
  ports: readonly Port[],
  role: Role,
  named: string | undefined,
  usual: string,
  rules: ((port: Port) => boolean)[],
): Port {
  const found = ports.find((port) => port.name === (named === undefined ? usual : named));
  if (found) return found;
  for (const rule of named === undefined ? rules : []) {
    const fitting = ports.filter(rule);
    if (fitting.length === 1) return fitting[0]!;
  }
  throw new ScoreSdeError(
    'ERR_MODEL',
    `the model has no ${named === undefined ? `recognisable ${role}` : `${role} named ${show(named)}`} among ${portsText(ports)}; ` +
      `name it with the option ${role}, or export it with the usual names (${exportingPage})`,
  );
}

/** The inputs and outputs of a score network by their roles, from its metadata. */
export class Contract {
  readonly sample: Port;
  readonly timestep: Port;
  readonly output: Port;
  /** The inputs other than the sample and the timestep. */
  readonly further: readonly Port[];
  /** The results of prepare, with the dims that they are for. */
  readonly #prepared = new WeakMap<ModelInputs, readonly number[]>();

  /** @throws ScoreSdeError ERR_MODEL where the metadata does not tell sample, timestep and output apart */
  constructor(
    readonly inputs: readonly Port[],
    readonly outputs: readonly Port[],
    private readonly options: CheckedNetwork,
  ) {
    this.sample = choose(inputs, 'sample', options.sample, 'sample', [
      (p) => isFloat(p) && p.shape.length > 1 && !isPerSample(p),
      (p) => isFloat(p) && p.shape.length > 1,
    ]);
    const others = inputs.filter((port) => port !== this.sample);
    this.timestep = choose(others, 'timestep', options.timestep, 'timestep', [
      (p) => isFloat(p) && isPerSample(p),
      (p) => isInteger(p) && isPerSample(p),
    ]);
    this.output = choose(outputs, 'output', options.output, 'out_sample', [() => true]);
    if (!['float32', 'float16'].includes(this.sample.type) || !isFloat(this.output))
      throw new ScoreSdeError(
        'ERR_MODEL',
        `the model must take and give float32 or float16 states, got ${portsText([this.sample])} and ${portsText([this.output])} (${exportingPage})`,
      );
    const { sample: states, timestep, output: score } = this;
    if (states.shape.length === 0 || !isPerSample(timestep) || !(isFloat(timestep) || isInteger(timestep)))
      throw new ScoreSdeError(
        'ERR_MODEL',
        `the model must take a batch of states and a number for each as their noise level, got ${portsText([states, timestep])} (${exportingPage})`,
      );
    if (inputs.some(({ name }) => name === score.name))
      throw new ScoreSdeError('ERR_MODEL', `the model gives its input ${score.name} as its score`);
    this.further = others.filter((port) => port !== timestep);
    if ((this.fixedBatch ?? 0) > maxBatch)
      throw new ScoreSdeError(
        'ERR_MODEL',
        `the model takes ${this.fixedBatch} samples a call and no other number: expected at most ${maxBatch}`,
      );
  }

  /** The name of the batch axis, if it has one. */
  get axis(): string | undefined {
    const [axis] = this.sample.shape;
    return typeof axis === 'string' && axis !== '?' ? axis : undefined;
  }

  /** The batch size that the network fixes, if it does. */
  get fixedBatch(): number | undefined {
    const { sample, timestep, output, further } = this;
    const [states] = sample.shape;
    if (typeof states === 'number') return states;
    const sizes = [timestep, output, ...further.filter(isPerSample)].map(({ shape }) => shape[0]);
    return sizes.find((size): size is number => typeof size === 'number' && size > 1); // 1 may be a value for all samples
  }

  /** The dims of one sample: sizes, and the names of free ones. */
  get sampleShape(): readonly (number | string)[] {
    return this.sample.shape.slice(1);
  }

  /**
   * The feeds of the further inputs, for states of `dims`. It returns its own result unchanged.
   * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_MODEL (a missing input, or an unknown one)
   */
  prepare(dims: readonly number[], given: ModelInputs, rules: Omit<BatchRules, 'size'>): ModelInputs {
    const before = this.#prepared.get(given);
    if (before?.length === dims.length && before.every((dim, axis) => dim === dims[axis])) return given;
    if (before)
      throw new ScoreSdeError(
        'ERR_SHAPE',
        `the inputs were prepared for a sample of dims [${before.join(', ')}], got one of [${dims.join(', ')}]`,
      );
    assertFits(this.sample, dims, 'sample', this.sample.shape[0] === rules.fixed ? 1 : 0);
    const unknown = Object.keys(given).find((name) => !this.further.some((port) => port.name === name));
    if (unknown !== undefined)
      throw new ScoreSdeError(
        'ERR_MODEL',
        `the model has no input ${show(unknown)}; its further inputs are: ${portsText(this.further)}`,
      );
    const feeds = Object.create(null) as Record<string, Feed>; // a port may be named __proto__
    const own = (inputs: ModelInputs | undefined, name: string): ModelInput | undefined =>
      inputs !== undefined && Object.hasOwn(inputs, name) ? inputs[name] : undefined;
    for (const port of this.further) {
      let value = own(given, port.name);
      if (value === undefined) value = own(this.options.defaultInputs, port.name);
      if (value === undefined)
        throw new ScoreSdeError(
          'ERR_MODEL',
          `the model needs ${portsText([port])}: give it as modelInputs.${port.name}`,
        );
      if (port.name === classLabels) value = oneHot(port, value, dims[0]!);
      const { axis } = this;
      const fed = feed(port, value, { ...rules, axis, size: dims[0]! });
      if (port.name === classLabels && isInteger(port)) this.#assertClasses(fed);
      feeds[port.name] = fed;
    }
    this.#prepared.set(feeds, [...dims]);
    return feeds;
  }

  /** ERR_RANGE where a label is of no class. A network may take -1 for its last class, and fails at others, or gives anything. */
  #assertClasses({ data }: Feed): void {
    const { classes = Infinity } = this.options;
    const labels = Array.from(data as unknown as ArrayLike<number | bigint>);
    const wrong = labels.find((label) => label < 0 || label >= classes);
    if (wrong === undefined) return;
    const range = classes === Infinity ? '0 on' : `0 to ${classes - 1}`;
    throw new ScoreSdeError('ERR_RANGE', `modelInputs.${classLabels} must hold classes from ${range}, got ${wrong}`);
  }

  /** What the network is said to be. */
  get kind(): NetworkKind {
    return this.options.kind;
  }

  /** What the network's output stands for and what it is told, where it is no score that takes sigma. */
  get parameterization(): Parameterization | undefined {
    const { parameterization } = this.options;
    if (parameterization === undefined || !isInteger(this.timestep) || !this.#isCounted) return parameterization;
    return { ...parameterization, label: (sigma) => Math.round(parameterization.label(sigma)) };
  }

  /** Whether the network is told an index or a step. */
  get #isCounted(): boolean {
    const { conditioning } = this.kind;
    return typeof conditioning === 'object' && ('index' in conditioning || 'alphasCumprod' in conditioning);
  }

  /** The further inputs that have no default. */
  get unspecified(): readonly Port[] {
    const { defaultInputs = {} } = this.options;
    return this.further.filter(({ name }) => !Object.hasOwn(defaultInputs, name) || defaultInputs[name] === undefined);
  }

  /** Whether the network takes whole numbers, to which a noise level is truncated that has none. */
  get truncates(): boolean {
    return isInteger(this.timestep) && !this.#isCounted;
  }

  /** Warns where sigma is truncated. */
  warnOfTruncation(name: string): void {
    if (!this.truncates) return;
    process.emitWarning(
      `${name}: its input ${portsText([this.timestep])} takes whole numbers, to which sigma is truncated: say what they stand ` +
        'for, as conditioning: { index: N, sigmas: { geometric: [sigmaMin, sigmaMax] } } or { alphasCumprod: [...] }',
      'ScoreSdeWarning',
    );
  }

  /** The feed of sigma, in the port's type: rounded to float16, truncated to an integer. ERR_SHAPE, ERR_RANGE. */
  feedSigma(sigma: ArrayLike<number>, batch: BatchRules): Feed {
    const levels = isInteger(this.timestep) ? Array.from(sigma, Math.trunc) : sigma;
    return feedPerSample(this.timestep, levels, batch, 'sigma');
  }
}
