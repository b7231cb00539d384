// Draws the results of `npm run quality -- --json FILE`: node bench/quality/plot.mjs FILE [SVG]
// Network calls against the Frechet distance, both axes logarithmic, a line for each solver. With several seeds a point is their
// mean, and the bar through it reaches one standard deviation up and down. SVG is docs/quality.svg unless given.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const [input, output = fileURLToPath(new URL('../../docs/quality.svg', import.meta.url))] = process.argv.slice(2);
const { samples, floor, results } = JSON.parse(await readFile(input, 'utf8'));

const [width, height] = [720, 420];
const [left, right, top, bottom] = [56, width - 140, 36, height - 52];
// Middle tones: each has a contrast of 3 or more to white and to GitHub's dark page, so that the picture needs no background.
const grey = '#767c85';
const colours = ['#ef4444', '#3b82f6', '#16a34a', '#d97706', '#a855f7', '#0d9488', '#db2777'];

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const unique = (values) => [...new Set(values)];
const lines = unique(results.map(({ solver }) => solver)).map((solver, i) => {
  const rows = results.filter((row) => row.solver === solver);
  const points = unique(rows.map(({ calls }) => calls)).map((calls) => {
    const seeds = rows.filter((row) => row.calls === calls);
    const distances = seeds.map(({ frechet }) => frechet);
    const centre = mean(distances);
    const squares = distances.reduce((sum, value) => sum + (value - centre) ** 2, 0);
    const deviation = Math.sqrt(squares / Math.max(1, distances.length - 1));
    return { calls: mean(seeds.map(({ callsMade }) => callsMade)), distance: centre, deviation };
  });
  return { solver, colour: colours[i % colours.length], points: points.sort((a, b) => a.calls - b.calls) };
});

/** 1, 2 and 5 times the powers of ten from the last one at or below `low` to the first at or above `high`. */
function ticksOf(low, high) {
  const all = Array.from({ length: 24 }, (_, i) => [1, 2, 5][i % 3] * 10 ** (Math.floor(i / 3) - 2));
  return all.slice(
    all.findLastIndex((tick) => tick <= low),
    all.findIndex((tick) => tick >= high) + 1,
  );
}
const points = lines.flatMap((line) => line.points);
const xTicks = ticksOf(Math.min(...points.map(({ calls }) => calls)), Math.max(...points.map(({ calls }) => calls)));
const distances = points.map(({ distance }) => distance);
const yTicks = ticksOf(Math.min(floor.frechet, ...distances), Math.max(...distances));
const scale = (ticks, from, to) => (value) => {
  const share = Math.log(value / ticks[0]) / Math.log(ticks.at(-1) / ticks[0]);
  return Math.round(10 * (from + share * (to - from))) / 10;
};
const x = scale(xTicks, left, right);
const y = scale(yTicks, bottom, top);

/** The heights of labels: those that would touch the one below are moved up. */
function apart(heights) {
  const placed = [];
  let above = Infinity;
  const fromBelow = heights.map((_, i) => i).sort((a, b) => heights[b] - heights[a]);
  for (const i of fromBelow) {
    placed[i] = Math.min(heights[i], above);
    above = placed[i] - 16;
  }
  return placed;
}
const text = (at, down, content, more = '') => `<text x="${at}" y="${down}" ${more}>${escape(content)}</text>`;
const escape = (content) => String(content).replace(/[&<>]/g, (sign) => `&#${sign.charCodeAt(0)};`);
const rule = (x1, y1, x2, y2, more = '') => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ${more}/>`;

const real = y(floor.frechet);
const ends = lines.map((line) => line.points.at(-1));
const [realLabel, ...labels] = apart([real, ...ends.map(({ distance }) => y(distance))]);
const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}"
  font-family="system-ui, sans-serif" font-size="13" fill="${grey}">
<title>Frechet distance by network calls</title>
${text(left, 20, `Frechet distance of ${samples} digits from real ones (lower is better)`, 'font-weight="600"')}
<g stroke="${grey}" stroke-opacity="0.3">
${yTicks.map((tick) => rule(left, y(tick), right, y(tick))).join('\n')}
${xTicks.map((tick) => rule(x(tick), bottom, x(tick), bottom + 5)).join('\n')}
</g>
<g text-anchor="end">
${yTicks.map((tick) => text(left - 8, y(tick) + 4, tick)).join('\n')}
</g>
<g text-anchor="middle">
${xTicks.map((tick) => text(x(tick), bottom + 20, tick)).join('\n')}
${text((left + right) / 2, bottom + 42, 'network calls')}
</g>
${rule(left, real, right, real, `stroke="${grey}" stroke-dasharray="5 4"`)}
${text(right + 10, realLabel + 4, `${floor.digits} real digits`)}
${lines.map((line, i) => lineOf(line, labels[i])).join('\n')}
</svg>
`;
await writeFile(output, svg);

function lineOf({ solver, colour, points }, label) {
  const at = points.map(({ calls, distance }) => `${x(calls)},${y(distance)}`);
  const bars = points
    .filter(({ deviation }) => deviation > 0)
    .map(({ calls, distance, deviation }) => {
      const low = Math.max(distance - deviation, yTicks[0]);
      return rule(x(calls), y(low), x(calls), y(distance + deviation));
    });
  return `<g stroke="${colour}" stroke-width="2" fill="none">
<polyline points="${at.join(' ')}"/>
${bars.join('\n')}
</g>
<g fill="${colour}">
${points.map(({ calls, distance }) => `<circle cx="${x(calls)}" cy="${y(distance)}" r="3.5"/>`).join('\n')}
${text(right + 10, label + 4, solver, 'font-weight="600"')}
</g>`;
}
