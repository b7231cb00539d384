// Images over HTTP, each request a run of its own: node examples/server.mjs, with PORT, CONCURRENCY and WAITING. It needs
// fastify and prom-client besides.
//   POST /sample {"seed": 7, "batchSize": 1, "calls": 20, "label": 3}  a PNG, or, where the client accepts
//                                                                      text/event-stream, progress and then the PNG
//   GET /healthz, GET /metrics
import { randomInt } from 'node:crypto';
import Fastify from 'fastify';
import prometheus from 'prom-client';
import { ScoreSdeError, ScoreSdeVePipeline } from 'score-sde';

const { PORT = '3000', HOST = '127.0.0.1', CONCURRENCY = '4', WAITING = '64' } = process.env;
const limits = { batchSize: 16, calls: 200, running: Number(CONCURRENCY), waiting: Number(WAITING) };
const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');

prometheus.collectDefaultMetrics();
const requests = new prometheus.Counter({
  name: 'samples_total',
  help: 'Requests by outcome',
  labelNames: ['outcome'],
});
const seconds = new prometheus.Histogram({ name: 'sample_seconds', help: 'Time of a run' });

/** So many runs at once; the next wait for their turn, and where too many wait, they are turned away. */
let running = 0;
const queue = [];
async function turn(signal) {
  if (running >= limits.running) {
    await new Promise((resolve, reject) => {
      const enter = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        queue.splice(queue.indexOf(enter), 1);
        reject(signal.reason);
      };
      signal.addEventListener('abort', leave, { once: true });
      queue.push(enter);
    });
  } else running++;
  return () => {
    const next = queue.shift();
    if (next) next();
    else running--;
  };
}

const integer = (minimum, maximum) => ({ type: 'integer', minimum, maximum });
const schema = {
  body: {
    type: 'object',
    additionalProperties: false,
    properties: {
      seed: integer(0, Number.MAX_SAFE_INTEGER),
      batchSize: { ...integer(1, limits.batchSize), default: 1 },
      calls: { ...integer(1, limits.calls), default: 20 },
      label: { ...integer(0, 10), default: 10 },
    },
  },
};

const app = Fastify({ bodyLimit: 4096, forceCloseConnections: true });

app.post('/sample', { schema }, async (request, reply) => {
  if (running >= limits.running && queue.length >= limits.waiting) {
    requests.inc({ outcome: 'full' });
    return reply.code(429).header('retry-after', '1').send({ error: 'too many requests are waiting' });
  }
  const left = new AbortController();
  reply.raw.on('close', () => reply.raw.writableFinished || left.abort());
  const { seed = randomInt(2 ** 32), batchSize, calls, label } = request.body ?? {};
  const streams = request.headers.accept?.includes('text/event-stream');
  const send = (event, data) => reply.raw.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  let done;
  try {
    done = await turn(left.signal);
    if (streams) {
      reply.hijack();
      reply.raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    }
    const result = await pipeline.run({
      seed,
      batchSize,
      calls,
      modelInputs: { class_labels: label },
      signal: left.signal,
      onProgress: streams ? ({ step, total }) => send('step', { step, total }) : undefined,
    });
    const png = await result.toPng();
    result.images.dispose();
    seconds.observe(result.seconds);
    requests.inc({ outcome: 'done' });
    if (!streams) return reply.type('image/png').header('x-seed', String(seed)).send(png);
    send('image', { seed, png: png.toString('base64') });
  } catch (error) {
    requests.inc({ outcome: left.signal.aborted ? 'left' : 'failed' });
    if (left.signal.aborted) return reply.hijack();
    if (!streams || !done) throw error;
    send('error', { code: error instanceof ScoreSdeError ? error.code : 'ERR_INTERNAL' });
  } finally {
    done?.();
  }
  reply.raw.end();
  return reply;
});

app.get('/healthz', async () => ({ ok: true, running, waiting: queue.length }));
app.get('/metrics', async (_, reply) =>
  reply.type(prometheus.register.contentType).send(await prometheus.register.metrics()),
);

for (const signal of ['SIGINT', 'SIGTERM'])
  process.once(signal, async () => {
    await app.close();
    await pipeline.dispose();
  });
console.log(await app.listen({ port: Number(PORT), host: HOST }));
