import { ScoreSdeError } from '../errors';
import { holdsOptions, meant, show, unknownOption } from '../options';

/** The options that are a corrector's. */
export const correctorOptions = ['correctSteps', 'snr', 'stepSize'] as const;

/** ERR_CONFIG unless `options`, or the solver's option `of`, can hold options, and has only `known` ones. */
export function assertKnown(solver: string, options: unknown, known: readonly string[], of?: string): void {
  if (!holdsOptions(options, known))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${solver}: ${of ?? 'options'} must be an object of named values, got ${show(options)}`,
    );
  const unknown = unknownOption(options, known);
  if (unknown === undefined) return;
  const isCorrectors = correctorOptions.some((option) => option === unknown);
  if (isCorrectors && !correctorOptions.some((option) => known.includes(option)))
    throw new ScoreSdeError('ERR_CONFIG', `solver ${show(solver)} has no corrector, and so no option ${show(unknown)}`);
  const expected = known.length === 0 ? '; it has none' : `; expected ${known.join(', ')}`;
  const name = of === undefined ? unknown : `${of}.${unknown}`;
  throw new ScoreSdeError(
    'ERR_CONFIG',
    `solver ${show(solver)} has no option ${show(name)}${meant(unknown, known)}${expected}`,
  );
}

/** A finite number >= 0, or `missing` where none is given. ERR_RANGE. */
export function nonNegative(value: unknown, name: string, missing: number): number {
  if (value === undefined) return missing;
  if (typeof value !== 'number' || !(value >= 0 && value < Infinity))
    throw new ScoreSdeError('ERR_RANGE', `${name} must be a finite number >= 0, got ${show(value)}`);
  return value;
}

/** A finite number > 0, or `missing` where none is given. ERR_RANGE. */
export function positive(value: unknown, name: string, missing: number): number {
  if (value === undefined) return missing;
  if (typeof value !== 'number' || !(value > 0 && value < Infinity))
    throw new ScoreSdeError('ERR_RANGE', `${name} must be a finite number > 0, got ${show(value)}`);
  return value;
}

/** An integer from `least` to `most`, or `missing` where none is given. ERR_RANGE. */
export function integer(value: unknown, name: string, least: number, most: number, missing?: number): number {
  if (value === undefined && missing !== undefined) return missing;
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most)
    throw new ScoreSdeError('ERR_RANGE', `${name} must be an integer from ${least} to ${most}, got ${show(value)}`);
  return value as number;
}

/** One of `choices`, or `missing` where none is given. ERR_CONFIG. */
export function oneOf<T extends string | boolean>(value: unknown, name: string, choices: readonly T[], missing: T): T {
  if (value === undefined) return missing;
  if (!choices.includes(value as T))
    throw new ScoreSdeError('ERR_CONFIG', `${name} must be ${oneOfText(choices)}, got ${show(value)}`);
  return value as T;
}

/** 'a', 'b' or 'c' */
function oneOfText(choices: readonly (string | boolean)[]): string {
  const words = choices.map((choice) => (typeof choice === 'string' ? `'${choice}'` : String(choice)));
  return [words.slice(0, -1).join(', '), words.at(-1)].filter(Boolean).join(' or ');
}
