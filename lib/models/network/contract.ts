import { ScoreSdeError } from '../../errors';
import { show } from '../../options';
import type { ModelInput, ModelInputs } from '../model';
import {
  assertFits,
  feed,
  feedPerSample,
  isFloat,
  isInteger,
  isPerSample,
  portsText,
  type BatchRules,
  type Feed,
  type Port,
} from './port';

/** Which of a network's inputs and outputs is what, where the names do not say it. */
export interface NetworkOptions {
  /** Name of the input for the states; 'sample', or the only one that can be it, unless given. */
  sample?: string;
  /** Name of the input for sigma; 'timestep', or the only one that can be it, unless given. */
  timestep?: string;
  /** Name of the output with the score; 'out_sample', or the only one, unless given. */
  output?: string;
  /** Values of further inputs that a run does not give. */
  defaultInputs?: ModelInputs;
}

export const networkOptions = ['sample', 'timestep', 'output', 'defaultInputs'] as const;

/** Samples that a network may fix as its batch. */
const maxBatch = 2 ** 12;

type Role = 'sample' | 'timestep' | 'output';

function choose(
  ports: readonly Port[],
  role: Role,
  named: string | undefined,
  usual: string,
  rules: ((port: Port) => boolean)[],
): Port {
  const found = ports.find((port) => port.name === (named ?? usual));
  if (found) return found;
  for (const rule of named === undefined ? rules : []) {
    const fitting = ports.filter(rule);
    if (fitting.length === 1) return fitting[0]!;
  }
  throw new ScoreSdeError(
    'ERR_MODEL',
    `the model has no ${named === undefined ? `recognisable ${role}` : `${role} named ${show(named)}`} among ${portsText(ports)}; ` +
      `name it with the option ${role}`,
  );
}

/** What a score network takes and gives, from its metadata: names, types and ranks are read, never assumed. */
export class Contract {
  readonly sample: Port;
  readonly timestep: Port;
  readonly output: Port;
  /** The inputs besides. */
  readonly further: readonly Port[];
  /** What was prepared, and for states of which dims. */
  readonly #prepared = new WeakMap<ModelInputs, readonly number[]>();

  /** @throws ScoreSdeError ERR_MODEL where the metadata does not tell sample, timestep and output apart */
  constructor(
    readonly inputs: readonly Port[],
    readonly outputs: readonly Port[],
    private readonly options: NetworkOptions,
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
        `the model must take and give float32 or float16 states, got ${portsText([this.sample])} and ${portsText([this.output])}`,
      );
    const { sample: states, timestep, output: score } = this;
    if (states.shape.length === 0 || !isPerSample(timestep) || !(isFloat(timestep) || isInteger(timestep)))
      throw new ScoreSdeError(
        'ERR_MODEL',
        `the model must take a batch of states and a number for each as their noise level, got ${portsText([states, timestep])}`,
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

  /** The name of the batch's axis, where it has one. */
  get axis(): string | undefined {
    const [axis] = this.sample.shape;
    return typeof axis === 'string' && axis !== '?' ? axis : undefined;
  }

  /** The one size of a batch that the network takes, where its metadata fix it. */
  get fixedBatch(): number | undefined {
    const { sample, timestep, output, further } = this;
    const [states] = sample.shape;
    if (typeof states === 'number') return states;
    const sizes = [timestep, output, ...further.filter(isPerSample)].map(({ shape }) => shape[0]);
    return sizes.find((size): size is number => typeof size === 'number' && size > 1); // 1 may mean one for all
  }

  /** The dims of one sample, free ones by name. */
  get sampleShape(): readonly (number | string)[] {
    return this.sample.shape.slice(1);
  }

  /**
   * The feeds of the further inputs for states of these dims: what it returned before, it returns again.
   * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_MODEL (an input that is missing, or that there is none of)
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
    const feeds = Object.create(null) as Record<string, Feed>; // of any names
    const own = (inputs: ModelInputs | undefined, name: string): ModelInput | undefined =>
      inputs !== undefined && Object.hasOwn(inputs, name) ? inputs[name] : undefined;
    for (const port of this.further) {
      const value = own(given, port.name) ?? own(this.options.defaultInputs, port.name);
      if (value === undefined)
        throw new ScoreSdeError(
          'ERR_MODEL',
          `the model needs ${portsText([port])}: give it as modelInputs.${port.name}`,
        );
      const { axis } = this;
      feeds[port.name] = feed(port, value, { ...rules, axis, size: dims[0]! });
    }
    this.#prepared.set(feeds, [...dims]);
    return feeds;
  }

  /** The feed of sigma: as it is, rounded to float16, or truncated to an integer, by the port's type. ERR_SHAPE, ERR_RANGE. */
  feedSigma(sigma: ArrayLike<number>, batch: BatchRules): Feed {
    const levels = isInteger(this.timestep) ? Array.from(sigma, Math.trunc) : sigma;
    return feedPerSample(this.timestep, levels, batch, 'sigma');
  }
}
