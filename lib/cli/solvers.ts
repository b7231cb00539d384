import { solverList } from '../solvers';
import { say } from './output';

/** What the other columns do not say. */
const remarks: Record<string, string> = { pc: '; takes 100 calls or more, below them noise is left' };

/** score-sde solvers: lists the solvers that `sample --solver` takes. */
export function listSolvers({ json = false }: { json?: boolean }): void {
  const rows = solverList.map(({ name, callsPerStep, stochastic, options, source }) => ({
    name,
    callsPerStep,
    stochastic,
    options,
    source,
  }));
  if (json) return say(JSON.stringify(rows, null, 2));
  const lines = rows.map(({ name, callsPerStep, stochastic, options, source }) => [
    name,
    callsPerStep,
    stochastic ? 'yes' : 'no',
    options.join(' ') || '-',
    source + (remarks[name] ?? ''),
  ]);
  for (const line of tableOf([['solver', 'calls a step', 'noise', 'options', 'source'], ...lines])) say(line);
}

/** Rows of cells as lines, each column as wide as its widest cell. */
function tableOf(rows: readonly string[][]): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  );
}
