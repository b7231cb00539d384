/** The 16-bit state types: how their bits read, and how a number rounds to them. */
export type HalfType = 'float16' | 'bfloat16';

const FORMATS = { float16: { mantissa: 10, minExponent: -14 }, bfloat16: { mantissa: 7, minExponent: -126 } };

export function decode(type: HalfType, bits: ArrayLike<number>): number[] {
  return Array.from(bits, (word) => {
    if (type === 'bfloat16') return new Float32Array(Uint32Array.of(word << 16).buffer)[0]!;
    const sign = word & 0x8000 ? -1 : 1;
    const exponent = (word >> 10) & 31;
    const fraction = word & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
  });
}

/** To the nearest value of that type, ties to even (not made for values that overflow it). */
export function roundTo(type: HalfType, value: number): number {
  const { mantissa, minExponent } = FORMATS[type];
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), minExponent);
  const unit = 2 ** (exponent - mantissa);
  return roundHalfEven(value / unit) * unit;
}

export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}
