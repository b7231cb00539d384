/** The backends that the parity tests run on. */
export const devices = ['cpu'] as const;
