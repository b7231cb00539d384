import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { PNG } from 'pngjs';
import { Generator, ScoreSdeVePipeline, type RunOptions } from '../lib';
import { cudaDevices } from './support/devices';
import { removeFolders, temporaryFolder } from './support/folders';
import { root } from './support/paths';
import { until } from './support/until';

afterAll(removeFolders);

const { NODE_OPTIONS: _, ...env } = process.env;
const example = (name: string, ...args: string[]) =>
  promisify(execFile)(process.execPath, [join(root, 'examples', `${name}.mjs`), ...args], { cwd: root, env });

async function picture(options: RunOptions, columns?: number): Promise<Buffer> {
  const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
  const result = await pipeline.run(options);
  await pipeline.dispose();
  return result.toPng({ columns });
}

const few = { numInferenceSteps: 50 };
const labels = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
test.each<[string, string[], RunOptions, number | undefined]>([
  ['minimal', [], { calls: 20, batchSize: 10, seed: 7, modelInputs: { class_labels: labels } }, 5],
  ['onnxruntime-session', [], { ...few, batchSize: 4, seed: 7 }, undefined],
])('%s makes its picture', async (name, args, options, columns) => {
  const file = join(await temporaryFolder(), 'x.png');
  await example(name, ...args, file);
  expect(await readFile(file)).toEqual(await picture(options, columns));
});

test("pytorch-seed makes PyTorch's picture", async () => {
  const file = join(await temporaryFolder(), 'x.png');
  await example('pytorch-seed', '42', file);
  const generator = new Generator(42, { engine: 'torch' });
  expect(await readFile(file)).toEqual(await picture({ ...few, batchSize: 4, generator }));
});

test('analytic-score samples its distribution', async () => {
  const { stdout } = await example('analytic-score');
  const [mean, deviation] = /mean (\S+), standard deviation (\S+)/.exec(stdout)!.slice(1).map(Number);
  expect(Math.abs(mean! - 3)).toBeLessThan(0.03);
  expect(Math.abs(deviation! - 0.5)).toBeLessThan(0.03);
});

test('device-buffer shares the memory of a device, or says what it needs', async () => {
  const made = await example('device-buffer').catch((error: { code: number; stderr: string }) => error);
  if (cudaDevices.length > 0) expect(made).toMatchObject({ stdout: expect.stringMatching(/^cuda:0: .* 0 elements/) });
  else
    expect(made).toMatchObject({ code: 1, stderr: expect.stringMatching(/^this example needs a CUDA device: .+\n$/) });
});

describe('server', () => {
  let server: ChildProcess;
  let url: string;
  beforeAll(async () => {
    server = spawn(process.execPath, [join(root, 'examples/server.mjs')], {
      env: { ...env, PORT: '0', CONCURRENCY: '1', WAITING: '2' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    url = await new Promise((resolve) =>
      server.stdout!.once('data', (data: Buffer) => resolve(data.toString().trim())),
    );
  });
  afterAll(async () => {
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill('SIGTERM');
    expect(await ended).toBe(0);
  });
  const sample = (body: object, init: RequestInit = {}) =>
    fetch(`${url}/sample`, {
      method: 'POST',
      body: JSON.stringify(body),
      ...init,
      headers: { 'content-type': 'application/json', ...init.headers },
    });
  const health = async () => (await (await fetch(`${url}/healthz`)).json()) as Record<string, number | boolean>;
  const running = (count: number) => until(async () => (await health()).running === count);

  test("a PNG: the seed's image, whoever else asks", async () => {
    const ask = async (seed: number) => Buffer.from(await (await sample({ seed, calls: 5, label: 3 })).arrayBuffer());
    const found = await Promise.all([1, 2].map(ask));
    for (const [k, seed] of [1, 2].entries())
      expect(found[k]).toEqual(await picture({ seed, calls: 5, modelInputs: { class_labels: 3 } }));
  });

  test('progress as events, then the picture', async () => {
    const response = await sample({ seed: 4, calls: 3, batchSize: 2 }, { headers: { accept: 'text/event-stream' } });
    const events = (await response.text()).trim().split('\n\n');
    expect(events.map((event) => event.split('\n')[0])).toEqual([
      ...Array<string>(3).fill('event: step'),
      'event: image',
    ]);
    const { png } = JSON.parse(events[3]!.split('data: ')[1]!) as { png: string };
    const { width, height } = PNG.sync.read(Buffer.from(png, 'base64'));
    expect([width, height]).toEqual([56, 28]);
  });

  test.each([{ batchSize: 17 }, { calls: 201 }, { calls: 0 }, { seed: -1 }, { label: 11 }])('%j: 400', async (body) =>
    expect((await sample(body)).status).toBe(400),
  );

  test('a run ends when its client leaves', async () => {
    await running(0);
    const controller = new AbortController();
    const asked = sample({ calls: 200, batchSize: 16 }, { signal: controller.signal }).catch(
      (error: Error) => error.name,
    );
    await running(1);
    controller.abort();
    expect(await asked).toBe('AbortError');
    await running(0);
    expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/samples_total\{outcome="left"\} 1\b/);
  });

  test('429 when it is full', async () => {
    const answers = await Promise.all(Array.from({ length: 10 }, () => sample({ calls: 10 })));
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(3);
    expect(statuses.filter((status) => status === 429).length).toBeGreaterThan(0);
    expect(new Set(statuses)).toEqual(new Set([200, 429]));
  });
});
