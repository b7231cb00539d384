import { ScoreSdeError } from '../errors';
import { assertOptions, givenOptions, show } from '../options';
import { behind, handOver, type ModelInputs, type ScoreModel } from './model';
import { checkedKind, kindOptions, type NetworkKind } from './network/kind';
import { scoreOf } from './network/score';

type Handing = Parameters<NonNullable<ScoreModel[typeof handOver]>>;
type Options = Omit<NetworkKind, 'prediction' | 'preconditioning'>;

/** A score model that was made of a network. */
export interface NetworkModel extends ScoreModel {
  /** Frees what the network holds. */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * A score model of a network that gives or takes something else: see {@link NetworkKind}. In a run its arithmetic is a part
 * of the updates and costs no pass of its own, but for networks that see x scaled. The network's prepare, devices and
 * dispose are the model's.
 * @param model The network, called as (x, what it is told, inputs, context)
 * @returns A model that refuses a sigma of 0, and what the network gives with other dims than x
 * @throws ScoreSdeError ERR_CONFIG, ERR_RANGE
 */
export function fromNetwork(model: ScoreModel, kind: NetworkKind = {}): NetworkModel {
  assertOptions(kind, kindOptions);
  if (typeof model !== 'function')
    throw new ScoreSdeError('ERR_CONFIG', `model must be a function of sample and sigma, got ${show(model)}`);
  const { kind: checked, parameterization } = checkedKind(kind);
  if (parameterization !== undefined && model[behind] !== undefined)
    throw new ScoreSdeError('ERR_CONFIG', 'model is a score model already: it was made from a network of another kind');
  const dataRange = checked.dataRange ?? model.dataRange;
  const { devices } = model;
  const dispose = async () => model.dispose?.();
  const face = {
    ...(model.prepare && { prepare: (dims: readonly number[], inputs: ModelInputs) => model.prepare!(dims, inputs) }),
    ...(devices && { devices }),
    dispose,
    [Symbol.asyncDispose]: dispose,
    ...(dataRange && { dataRange }),
  };
  if (parameterization !== undefined)
    return Object.assign(scoreOf(model, parameterization), face, { [behind]: { network: model, parameterization } });
  const call = (...args: Parameters<ScoreModel>) => model(...args);
  const handed = model[handOver] && ((...args: Handing) => model[handOver]!(...args));
  return Object.assign(call, face, { [behind]: model[behind], ...(handed && { [handOver]: handed }) });
}

function ofPrediction(prediction: NetworkKind['prediction'], model: ScoreModel, options: Options): NetworkModel {
  const known = ['conditioning', 'dataRange'] as const;
  assertOptions(options, known);
  return fromNetwork(model, { ...givenOptions(options, known), prediction });
}

/** A score model of a denoiser D(x; sigma), as EDM's and k-diffusion's: s = (D - x) / sigma^2. See {@link fromNetwork}. */
export function fromDenoiser(model: ScoreModel, options: Options = {}): NetworkModel {
  return ofPrediction('denoised', model, options);
}

/** A score model of a network that predicts the noise, x = x0 + sigma eps: s = -eps / sigma. See {@link fromNetwork}. */
export function fromNoisePrediction(model: ScoreModel, options: Options = {}): NetworkModel {
  return ofPrediction('noise', model, options);
}

/** A score model of a v-prediction network, which sees x / sqrt(1 + sigma^2). See {@link fromNetwork}. */
export function fromVPrediction(model: ScoreModel, options: Options = {}): NetworkModel {
  return ofPrediction('v_prediction', model, options);
}
