import { InvalidArgumentError } from 'commander';

// Parsers of the options' values. What they refuse, commander reports with the option's name.

/** An integer from `min` to `max`. */
export const integer = (min: number, max: number) => (text: string) => {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max)
    throw new InvalidArgumentError(`Expected an integer from ${min} to ${max}.`);
  return value;
};

/** Integers with commas between them. */
export const integerList = (min: number, max: number) => (text: string) => text.split(',').map(integer(min, max));

/** One more argument of an option that takes several integers: an integer, or some with commas between them. */
export const integers =
  (min: number, max: number) =>
  (text: string, others: number[] = []): number[] => [...others, ...integerList(min, max)(text)];

/** Words with commas between them. */
export function words(text: string): string[] {
  const list = text.split(',').map((word) => word.trim());
  if (list.includes('')) throw new InvalidArgumentError('Expected names with commas between them.');
  return list;
}

export function seed(text: string): bigint {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError('Expected an integer.');
  return BigInt(text);
}

const isNumber = (text: string) => text.trim() !== '' && Number.isFinite(Number(text));

export function positive(text: string): number {
  if (!isNumber(text) || Number(text) <= 0) throw new InvalidArgumentError('Expected a number above 0.');
  return Number(text);
}

export function nonNegative(text: string): number {
  if (!isNumber(text) || Number(text) < 0) throw new InvalidArgumentError('Expected a number, 0 or above.');
  return Number(text);
}

export function eta(text: string): number | 'authors' {
  if (text === 'authors') return text;
  if (!isNumber(text) || Number(text) < 0)
    throw new InvalidArgumentError('Expected a number, 0 or above, or the word authors.');
  return Number(text);
}
