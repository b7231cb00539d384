import type { Held } from './measure';
import type { CallResult, NetworkBenchResult, NetworkResult } from './network';
import type { BenchResult, CaseResult } from './run';

const columns = [
  'shape',
  'operation',
  'engine',
  'type',
  'thr',
  'us',
  'p10 - p90',
  'async us',
  'GB/s',
  'band',
  'rng',
  'torch',
];
const widths = [13, 18, 6, 7, 3, 9, 17, 9, 6, 5, 5, 6];
const left = 4; // the first columns are text, aligned left

const us = (value: number): string => value.toFixed(value < 100 ? 1 : 0);
const percent = (share: number | undefined): string => (share === undefined ? '' : `${Math.round(100 * share)}%`);
const times = (ratio: number | undefined): string => (ratio === undefined ? '' : `${ratio.toFixed(1)}x`);

const held = ({ longest, p99 }: Held): string =>
  `${longest.toFixed(1)} ms at most, ${p99.toFixed(1)} ms at the 99th percentile`;

const row = (cells: string[]): string =>
  cells.map((cell, i) => (i < left ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' ');

export const header = row(columns);

/** A case's line of the table. */
export function caseLine(c: CaseResult): string {
  const range = `${us(c.sync.p10)} - ${us(c.sync.p90)}`;
  const [rate, shares] = [c.rate.toFixed(1), [percent(c.ofBandwidth), percent(c.ofNormals)]];
  const text = [c.shape, c.op, c.engine, c.type, String(c.threads)];
  return row([...text, us(c.sync.median), range, us(c.async.median), rate, ...shares, times(c.timesTorch)]);
}

/** The text after the table. */
export function summary({ machine, limits, fixed, loopDelay }: BenchResult): string {
  const lines = [
    '',
    Object.entries(machine)
      .map(([key, value]) => `${key}: ${value}`)
      .join(', '),
  ];
  for (const { threads, philox, torch, stream } of limits) {
    const triads = Object.entries(stream).map(([shape, { triad }]) => `${shape} ${(triad / 1e9).toFixed(0)}`);
    lines.push(
      `limits with ${threads} thread(s): ${(philox / 1e9).toFixed(2)} philox and ${(torch / 1e9).toFixed(2)} torch normals a ns; ` +
        `triad over arrays of a shape's size, GB/s: ${triads.join(', ')}`,
    );
  }
  for (const { name, time, timesTorch } of fixed)
    lines.push(
      `${name}: ${us(time.median)} us (${us(time.p10)} - ${us(time.p90)}) ${timesTorch ? `${times(timesTorch)} torch` : ''}`,
    );
  lines.push(
    `event loop held while 8 pipelines ran: ${held(loopDelay.running)}; while empty turns did: ${held(loopDelay.empty)}`,
    '',
    'band: least time by the triad over the time taken; rng: the same by the rate of normals; torch: PyTorch over ours.',
  );
  return lines.join('\n');
}

export const networkHeader =
  'model through      batch  steps  seconds   outside the network   event loop held, ms: at most, p99';

/** The line of a pipeline's runs. */
export function networkLine({ way, batch, steps, seconds, outside, held }: NetworkResult): string {
  const cells = [
    way.padEnd(16),
    String(batch).padStart(7),
    String(steps).padStart(6),
    seconds.toFixed(2).padStart(8),
    `${(100 * outside).toFixed(1)} %`.padStart(21),
    `${held.longest.toFixed(1)}, ${held.p99.toFixed(1)}`.padStart(37),
  ];
  return cells.join(' ');
}

/** The line of an event loop beside computing threads. */
export const machineLine = ({ threads, held: { longest, p99 } }: NetworkBenchResult['machine'][number]): string =>
  `${threads} threads that compute, and nothing else`.padEnd(69) +
  `${longest.toFixed(1)}, ${p99.toFixed(1)}`.padStart(22);

/** The line of a call of the small network. */
export const callLine = ({ shape, ours, theirs }: CallResult): string =>
  `a network of one product, ${shape}: ${us(ours)} us a call, ${us(theirs)} us through onnxruntime-node, ${times(theirs / ours)}`;
