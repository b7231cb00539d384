import type { NetworkKind } from './kind';

const nouns = {
  score: 'a score',
  denoised: 'a denoised estimate',
  noise: 'a noise prediction',
  v_prediction: 'a v-prediction',
} as const;

/** The parts of a kind that say what is done with its output, with their defaults. */
export const withDefaults = ({ prediction = 'score', conditioning = 'sigma', preconditioning }: NetworkKind) => ({
  prediction,
  conditioning,
  preconditioning,
});

/** A kind as people say it. */
export function nameOf(kind: NetworkKind): string {
  const { prediction, conditioning, preconditioning } = withDefaults(kind);
  if (preconditioning !== undefined) return `a raw network of preconditioning ${shown(preconditioning)}`;
  return `${nouns[prediction]} that takes ${typeof conditioning === 'string' ? conditioning : shown(conditioning)}`;
}

/** A kind as text, the same for the same kind. */
export function kindText({ prediction, conditioning, preconditioning, dataRange }: NetworkKind): string {
  return JSON.stringify({ prediction, conditioning, preconditioning, dataRange });
}

/** What to say in place of what was said of a kind. */
export function sayInstead(kind: NetworkKind, said: NetworkKind): string {
  const [is, was] = [withDefaults(kind), withDefaults(said)];
  const { preconditioning } = kind;
  const isRaw = preconditioning !== undefined;
  const wasRaw = said.preconditioning !== undefined;
  const say = isRaw
    ? [`preconditioning: ${shown(preconditioning)}`]
    : (['prediction', 'conditioning'] as const)
        .filter((key) => wasRaw || JSON.stringify(is[key]) !== JSON.stringify(was[key]))
        .map((key) => `${key}: ${shown(is[key])}`);
  const given = (['prediction', 'conditioning', 'preconditioning'] as const).filter((key) => said[key] !== undefined);
  const wrong = given.filter((key) => (key === 'preconditioning') !== isRaw);
  return `say ${say.join(', ')}${wrong.length > 0 ? `, and no ${wrong.join(' or ')}` : ''}`;
}

function shown(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  if (Array.isArray(value)) return value.length > 8 ? `[${value.length} numbers]` : `[${value.join(', ')}]`;
  if (typeof value !== 'object' || value === null) return String(value);
  return `{ ${Object.entries(value)
    .map(([key, part]) => `${key}: ${shown(part)}`)
    .join(', ')} }`;
}
