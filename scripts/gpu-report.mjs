// What scripts/bench-gpu.sh measured as a table: node scripts/gpu-report.mjs RESULTS.jsonl
import { readFileSync } from 'node:fs';

const lines = readFileSync(process.argv[2], 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('{'))
  .map((line) => JSON.parse(line));

const { device, copy_GB_per_s } = lines.find((line) => line.copy_GB_per_s !== undefined) ?? {};
console.log(
  `${device}, device-to-device copy ${copy_GB_per_s} GB/s; times in microseconds, bound: each operand and result moved once`,
);

const torch = (op, name) => (way) =>
  lines.find((line) => line.op === op && line.case === name && line.torch === way) ?? {};
const rows = lines
  .filter((line) => line.bound_us !== undefined)
  .map((line) => {
    const peer = line.type === 'float32' ? torch(line.op, line.case) : () => ({});
    // Both with the cache flushed: a graph's replay against a graph's, else the stream against the stream.
    const times = (way, ours) => {
      const { flushed_us: theirs } = peer(way);
      return theirs === undefined ? '' : `${theirs} (${(theirs / ours).toFixed(1)}x)`;
    };
    return {
      op: line.op,
      case: line.case,
      type: line.type,
      launches: line.launches,
      tensors: line.tensors,
      bound: line.bound_us,
      stream: line.stream_flushed_us,
      'of bound': line.flushed_ratio,
      'stream, warm': line.stream_warm_us,
      graph: line.graph_flushed_us,
      'graph, warm': line.graph_warm_us,
      'torch shipped': times('shipped', line.stream_flushed_us),
      'torch eager': times('eager', line.stream_flushed_us),
      'torch compiled': times('compiled', line.graph_flushed_us),
    };
  });
console.table(rows);
console.table(lines.filter((line) => line.op === 'loop'));
for (const { op, case: name, torch: way, error } of lines)
  if (error !== undefined) console.log(`${op} ${name}, torch ${way}: ${error}`);
