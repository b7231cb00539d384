// The server of examples/ under load: 50 clients of autocannon for 60 s, digits of 20 network calls; beside them one client that
// compares every image with the one its seed gave alone. node bench/server.mjs [SECONDS]
import { spawn } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import autocannon from 'autocannon';

const duration = Number(process.argv[2] ?? 60);
const script = fileURLToPath(new URL('../examples/server.mjs', import.meta.url));
const server = spawn(process.execPath, [script], {
  env: { ...process.env, PORT: '0' },
  stdio: ['ignore', 'pipe', 'inherit'],
});
const url = await new Promise((resolve) => server.stdout.once('data', (data) => resolve(String(data).trim())));

const headers = { 'content-type': 'application/json' };
const bodyOf = (seed) => JSON.stringify({ seed, calls: 20, label: seed % 10 });
const ask = (seed) => fetch(`${url}/sample`, { method: 'POST', headers, body: bodyOf(seed) });
const bytes = async (response) => Buffer.from(await response.arrayBuffer()).toString('base64');
const metric = async (name) => {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)[1]);
};

const alone = [];
for (let seed = 0; seed < 10; seed++) alone.push(await bytes(await ask(seed)));
const before = await metric('process_resident_memory_bytes');
// Each asking begins a new span of the server's histogram, whose values hold its period of 10 ms: idle says how much.
const delay = async () => Math.round(1e4 * (await metric('nodejs_eventloop_lag_p99_seconds'))) / 10;
await delay();
await new Promise((resolve) => setTimeout(resolve, 5000));
const idle = await delay();

let working = true;
let [compared, different] = [0, 0];
const checker = (async () => {
  for (let i = 0; working; i++) {
    const response = await ask(i % 10);
    if (response.status !== 200) continue;
    compared++;
    if ((await bytes(response)) !== alone[i % 10]) different++;
  }
})();
const requests = alone.map((_, seed) => ({ method: 'POST', path: '/sample', headers, body: bodyOf(seed) }));
const [memory, delays] = [[], []];
const sampler = setInterval(async () => {
  delays.push(await delay());
  memory.push(await metric('process_resident_memory_bytes'));
}, 5000);
const result = await autocannon({ url, connections: 50, duration, requests, timeout: 60 });
clearInterval(sampler);
working = false;
await checker;
const megabytes = (value) => Math.round(value / 2 ** 20);
console.log(
  JSON.stringify(
    {
      machine: `${cpus()[0].model.trim()}, ${cpus().length} CPUs, node ${process.version}`,
      date: new Date().toISOString().slice(0, 10),
      clients: 50,
      seconds: duration,
      statuses: Object.fromEntries(Object.entries(result.statusCodeStats).map(([code, { count }]) => [code, count])),
      errors: result.errors,
      timeouts: result.timeouts,
      latencyMs: { p50: result.latency.p50, p99: result.latency.p99 },
      compared,
      different,
      eventLoopDelayP99Ms: { idle, during: delays },
      rssMiB: { before: megabytes(before), during: memory.map(megabytes) },
    },
    null,
    2,
  ),
);
server.kill('SIGTERM');
