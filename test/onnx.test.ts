import { execFileSync } from 'node:child_process';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as ort from 'onnxruntime-node';
import {
  fromInferenceSession,
  Generator,
  getNumThreads,
  OnnxModel,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  Tensor,
  type ModelInputs,
  type PerSample,
  type ScoreModel,
  type StateType,
} from '../lib';
import { folderOf } from '../lib/sampling/pretrained';
import { findLibrary } from '../lib/models/onnx/library';
import { nativePath } from '../lib/native/addon';
import { outputs, run } from './support/child';
import { toHalf } from './support/edge';
import { removeFolders, temporaryFolder } from './support/folders';
import { bitEqual, maxAbsDiff } from './support/golden';
import { roundTo } from './support/half';
import { loader } from './support/loading';
import { formula } from './support/models';
import {
  externalGraph,
  elementLogarithmGraph,
  formulaGraph,
  logarithmGraph,
  meanLogarithmGraph,
  port,
  rootGraph,
  scoreGraph,
  slowGraph,
  states,
  type GraphPort,
  type OnnxType,
} from './support/onnx';
import { failure, rejection, sentence } from './support/refusals';

const digits = join(folderOf('digits'), 'unet', 'model.onnx');
const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;
const sigmas = (...levels: number[]) => new Tensor('float32', Float32Array.from(levels), [levels.length]);
const shape = [1, 2, 2];
const x = new Generator(1).randn([5, ...shape]);
const levels = [0.1, 0.5, 2, 7, 30];
const lin = formula({ name: 'lin' });
const expected = Float32Array.from(
  levels.flatMap((t, i) => [...lin(floats(x).subarray(4 * i, 4 * i + 4), Math.fround(t))]),
);

const load = loader();
afterAll(removeFolders);

describe('a network that is loaded', () => {
  test('is a ScoreModel: a function, and an object of its class', async () => {
    const model = await load(scoreGraph());
    expect(typeof model).toBe('function');
    expect(model).toBeInstanceOf(OnnxModel);
    expect({ inputs: model.inputs, outputs: model.outputs, sampleShape: model.sampleShape }).toEqual({
      inputs: [
        { name: 'sample', type: 'float32', shape: ['batch', 1, 2, 2] },
        { name: 'timestep', type: 'float32', shape: ['batch'] },
      ],
      outputs: [{ name: 'out_sample', type: 'float32', shape: ['batch', 1, 2, 2] }],
      sampleShape: shape,
    });
    expect(model.device).toBe('cpu');
    expect(model.library.version).toBe(ort.env.versions.node);
    expect(model.library.path).toBe(findLibrary().path);
    bitEqual(floats(await model(x, sigmas(...levels))), expected);
    bitEqual(floats(await model.run(x, levels)), expected);
  });

  test('from its file is the same as from its bytes', async () => {
    const [file, bytes] = [await load(digits), await load(await readFile(digits))];
    const sample = new Generator(2).randn([3, 1, 28, 28]);
    const inputs = { class_labels: [1, 2, 3] };
    const score = await file.run(sample, 1.5, inputs);
    bitEqual(floats(await bytes.run(sample, 1.5, inputs)), floats(score));
    expect(bytes.inputs).toEqual(file.inputs);
  });

  test('finds its weights in another file', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'model.onnx'), externalGraph('weights.bin', shape));
    await writeFile(join(folder, 'weights.bin'), new Uint8Array(Float32Array.of(3).buffer));
    const model = await load(join(folder, 'model.onnx'));
    bitEqual(
      floats(await model.run(x, 2)),
      floats(x).map((v) => 3 * v),
    );
  });

  test.each<[string, PerSample]>([
    ['a number', 2],
    ['one of each', [2, 2, 2, 2, 2]],
    ['a Float32Array', new Float32Array(5).fill(2)],
    ['a tensor of one', sigmas(2)],
    ['a tensor of bfloat16', toHalf(sigmas(2, 2, 2, 2, 2), 'bfloat16')],
  ])('takes %s for sigma', async (_, sigma) => {
    const model = await load(scoreGraph());
    bitEqual(floats(await model.run(x, sigma)), lin(floats(x), 2));
  });

  test.each<[OnnxType, StateType, StateType]>(
    (['float32', 'float16'] as const).flatMap((network) =>
      (['float32', 'float16', 'bfloat16'] as const).flatMap((sample) =>
        (['float32', 'float16', 'bfloat16'] as const).map((out): [OnnxType, StateType, StateType] => [
          network,
          sample,
          out,
        ]),
      ),
    ),
  )('of %s takes %s and gives %s', async (type, from, to) => {
    const model = await load(
      scoreGraph({
        inputs: [{ ...states, type }, port('timestep')],
        outputs: [port('out_sample', type, ['batch', 1, 2, 2])],
      }),
    );
    const given = from === 'float32' ? x : toHalf(x, from);
    const rounded = (values: Float32Array, to: string) =>
      to === 'float32' ? values : values.map((v) => roundTo(to as 'float16', v));
    const seen = rounded(rounded(floats(x), from), type);
    const score = new Tensor('float32', rounded(lin(seen, 2), type), x.dims);
    const out = Tensor.empty(x.dims, { type: to }) as Tensor;
    expect(await model.run(given, 2, {}, { out })).toBe(out);
    const bits = to === 'float32' ? score.data : toHalf(score, to).data;
    expect(out.data).toEqual(bits);
  });

  test('writes into out and returns it; without it, into a tensor of its own', async () => {
    const model = await load(scoreGraph());
    const out = Tensor.empty(x.dims);
    expect(await model.run(x, levels, {}, { out })).toBe(out);
    bitEqual(floats(out), expected);
    const [a, b] = [await model.run(x, levels), await model.run(x, levels)];
    expect(a.data.buffer).not.toBe(b.data.buffer);
    bitEqual(floats(a), expected);
  });

  test('takes batches of any size, none among them', async () => {
    const model = await load(scoreGraph());
    for (const size of [0, 1, 2, 5]) {
      const sample = new Tensor('float32', floats(x).slice(0, 4 * size), [size, ...shape]);
      bitEqual(floats(await model.run(sample, levels.slice(0, size))), expected.slice(0, 4 * size));
    }
  });
});

describe('the digits', () => {
  const options = { batchSize: 4, numInferenceSteps: 10, seed: 5, modelInputs: { class_labels: [0, 1, 2, 3] } };

  test('are those of an onnxruntime-node session', async () => {
    const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
    expect(pipeline.model).toBeInstanceOf(OnnxModel);
    const session = await ort.InferenceSession.create(digits);
    const { scheduler, sampleShape } = pipeline;
    const other = new ScoreSdeVePipeline({ scheduler, model: fromInferenceSession(session), sampleShape });
    const [ours, theirs] = [await pipeline.run(options), await other.run(options)];
    expect(maxAbsDiff(floats(ours.images), floats(theirs.images))).toBeLessThanOrEqual(1e-5);
    await pipeline.dispose();
    await other.dispose();
  });

  test('of many runs at once are those of runs alone', async () => {
    const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
    const one = (seed: number) => pipeline.run({ ...options, seed, batchSize: 2, modelInputs: { class_labels: seed } });
    const together = await Promise.all([1, 2, 3, 4, 5].map(one));
    for (const [i, { images }] of together.entries()) bitEqual(floats(images), floats((await one(i + 1)).images));
    await pipeline.dispose();
  });
});

describe('a sample gets the same bits alone and in company', () => {
  const network = logarithmGraph([3, 4, 4]);
  const image = (model: OnnxModel, batchSize: number, seed: number) =>
    new ScoreSdeVePipeline({ scheduler: new ScoreSdeVeScheduler({ sigmaMax: 5 }), model, sampleShape: [3, 4, 4] })
      .run({ batchSize, seed, numInferenceSteps: 8 })
      .then(({ images }) => floats(images).slice(-48));

  test.each([true, 'auto'] as const)(
    'of a network that takes the logarithm of [batch] sigmas, exact %p',
    async (exact) => {
      const model = await load(network, { exact });
      expect(model.exact.holds).toBe(true);
      const alone = await image(model, 1, 100);
      bitEqual(await image(model, 4, 97), alone);
      bitEqual(await image(model, 16, 85), alone);
      // And of sigmas that differ.
      const count = 64;
      const sample = new Generator(1).randn([count, 3, 4, 4]);
      const sigma = Float32Array.from({ length: count }, (_, i) => 0.01 * 1.1 ** i);
      const batch = floats(await model.run(sample, sigma));
      for (let i = 0; i < count; i++) {
        const one = new Tensor('float32', floats(sample).slice(48 * i, 48 * i + 48), [1, 3, 4, 4]);
        bitEqual(floats(await model.run(one, sigma[i]!)), batch.slice(48 * i, 48 * i + 48));
      }
    },
  );

  test('of the digits, which go in small calls', async () => {
    const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
    expect((pipeline.model as OnnxModel).exact).toMatchObject({ holds: true, width: 8 });
    const last = async (batchSize: number, seed: number) =>
      floats((await pipeline.run({ batchSize, seed, numInferenceSteps: 5 })).images).slice(-784);
    const alone = await last(1, 100);
    bitEqual(await last(4, 97), alone);
    bitEqual(await last(16, 85), alone);
    await pipeline.dispose();
  });

  // Where elements are rounded otherwise at the end of a vector, or of a thread's part of one.
  const scalar: GraphPort = port('timestep', 'float32', []);
  const hard: [string, Uint8Array, number[], number[]][] = [
    ['of one sigma for all', meanLogarithmGraph(scalar, 'batch', [1, 4, 4]), [1, 4, 4], [4, 16, 64]],
    ['of an element-wise logarithm', elementLogarithmGraph([1, 28, 28]), [1, 28, 28], [4, 16, 61]],
    ...[2, 5, 6, 7].map((size): (typeof hard)[number] => [
      `that takes ${size} samples a call`,
      meanLogarithmGraph(port('timestep', 'float32', [size]), size, [1, 4, 4]),
      [1, 4, 4],
      [2, 5, 13],
    ]),
  ];
  test.each(
    hard.flatMap(([what, bytes, dims, sizes]) =>
      (['auto', true] as const).map((exact) => ({ what, bytes, dims, sizes, exact })),
    ),
  )('of a network $what, exact $exact', async ({ bytes, dims, sizes, exact }) => {
    const model = await load(bytes, { exact, intraOpThreads: 3 });
    expect(model.exact.holds).toBe(true);
    const size = dims.reduce((a, b) => a * b);
    for (const count of sizes) {
      const sample = new Generator(2).randn([count, ...dims]);
      const batch = floats(await model.run(sample, 0.7));
      for (let i = 0; i < count; i++) {
        const one = new Tensor('float32', floats(sample).slice(size * i, size * i + size), [1, ...dims]);
        bitEqual(floats(await model.run(one, 0.7)), batch.slice(size * i, size * i + size));
      }
    }
  });

  const element = elementLogarithmGraph([1, 28, 28]);
  test.each<[string, string | Uint8Array, number]>([
    ['the digits', digits, 1],
    ['the digits', digits, 2],
    ['an element-wise logarithm', element, 5],
    ['an element-wise logarithm', element, 16],
  ])('of %s (%#), whichever of its threads a call has, also beside other runs', async (_, network, threads) => {
    const model = await load(network, { intraOpThreads: threads });
    expect(model.exact).toMatchObject({ holds: true, ...(network === element && { width: 8, atOnce: threads }) });
    const inputs: ModelInputs = network === digits ? { class_labels: 3 } : {};
    const count = 21;
    const sample = floats(new Generator(1).randn([count, 1, 28, 28]));
    const sigma = Float32Array.from({ length: count }, (_, i) => 0.01 * 1.5 ** i);
    const rows = async (from: number, to: number) => {
      const part = new Tensor('float32', sample.subarray(784 * from, 784 * to), [to - from, 1, 28, 28]);
      return floats(await model.run(part, sigma.subarray(from, to), inputs));
    };
    const alone = new Float32Array(784 * count);
    for (let i = 0; i < count; i++) alone.set(await rows(i, i + 1), 784 * i);
    const same = async (from: number, to: number) =>
      bitEqual(await rows(from, to), alone.subarray(784 * from, 784 * to));
    for (const size of [2, 3, 7, 8, 16, 21]) await same(count - size, count);
    await Promise.all(Array.from({ length: count }, (_, i) => same(i, i + 1)));
    await Promise.all([same(0, 9), same(9, 21), same(4, 5)]);
  });

  test('a tensor for all is not divided, though it is as long as the batch', async () => {
    const inputs = [states, port('timestep'), port('context', 'float32', ['tokens', 1, 2, 2])];
    const context = new Tensor('float32', Float32Array.of(1, 2, 3, 4), [1, 1, 2, 2]);
    const model = await load(scoreGraph({ inputs }), { exact: true });
    for (const count of [1, 2, 3]) {
      const sample = new Tensor('float32', new Float32Array(4 * count), [count, ...shape]);
      const score = floats(await model.run(sample, 1, { context }));
      for (let row = 0; row < count; row++)
        expect([...score.subarray(4 * row, 4 * row + 4)].map(Math.abs)).toEqual([1, 2, 3, 4]);
    }
  });

  test('exact false promises nothing, and says so', async () => {
    expect((await load(network, { exact: false })).exact).toEqual({
      holds: false,
      width: 'any',
      atOnce: 1,
      why: 'exact is false',
    });
  });

  test('sizes that are free are probed where they are said', async () => {
    const free = scoreGraph({ inputs: [port('sample', 'float32', ['b', 'c', 'h', 'w']), port('timestep')] });
    expect((await load(free)).exact).toMatchObject({
      holds: true,
      width: 1,
      why: expect.stringMatching(/sampleShape/),
    });
    expect((await load(free, { sampleShape: [1, 4, 4] })).exact).toMatchObject({ holds: true, width: 8 });
  });

  test.each([1, 2, 3, 4])('a network for batches of %d takes any, and fills up the last', async (size) => {
    const inputs = [port('sample', 'float32', [size, ...shape]), port('timestep', 'float32', [size])];
    const model = await load(scoreGraph({ inputs }));
    expect(model.exact).toMatchObject({ holds: true, width: size });
    bitEqual(floats(await model.run(x, levels)), expected);
  });
});

describe('a run', () => {
  // In steps of 0.1 to 2 ms, by the machine.
  const slow = slowGraph(256, 300);
  const slower = slowGraph(256, 1500);
  const sample = new Generator(1).randn([1, 1, 256, 256]);
  const answer = floats(sample).map((v) => -v);

  test('leaves the event loop free', async () => {
    const model = await load(slower, { exact: false });
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const score = await model.run(sample, 1);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(10);
    bitEqual(floats(score), answer);
  });

  test('ends soon after its signal, and the next is right', async () => {
    const model = await load(slower, { exact: false });
    const third = await load(slowGraph(256, 500), { exact: false });
    await Promise.all([model.run(sample, 1), third.run(sample, 1)]);
    const controller = new AbortController();
    const reason = new Error('nobody waits for it');
    const running = rejection(() => model.run(sample, 1, {}, { signal: controller.signal }));
    await new Promise((resolve) => setTimeout(resolve, 10));
    controller.abort(reason);
    const order: string[] = [];
    const ended = running.then((error) => (order.push('aborted'), error));
    // What begins now is done before the rest of the aborted run would be. It takes longer than the system keeps a thread from
    // a core, where other programs are busy.
    await third.run(sample, 1).then(() => order.push('a third'));
    const error = await ended;
    expect(order).toEqual(['aborted', 'a third']);
    sentence(error, 'ERR_ABORTED');
    expect([error.name, error.cause]).toEqual(['AbortError', reason]);
    bitEqual(floats(await model.run(sample, 1)), answer);
  });

  test('that waits for others ends at once', async () => {
    const model = await load(slow, { exact: false });
    const others = Array.from({ length: 12 }, () => model.run(sample, 1));
    const controller = new AbortController();
    const waiting = rejection(() => model.run(sample, 1, {}, { signal: controller.signal }));
    const order: string[] = [];
    void others.at(-1)!.then(() => order.push('others'));
    const ended = waiting.then((error) => (order.push('aborted'), error));
    await new Promise(setImmediate);
    controller.abort();
    sentence(await ended, 'ERR_ABORTED');
    await Promise.all(others);
    expect(order).toEqual(['aborted', 'others']);
  });

  test('of a batch ends with its signal on every thread, and the next is right', async () => {
    const model = await load(digits);
    const batch = new Generator(1).randn([256, 1, 28, 28]); // which takes hundreds of milliseconds
    const given = [batch, 1, { class_labels: 3 }] as const;
    const before = floats(await model.run(...given));
    for (const wait of [0, 2, 5]) {
      const controller = new AbortController();
      const out = Tensor.zeros(batch.dims);
      const running = rejection(() => model.run(...given, { out, signal: controller.signal }));
      await new Promise((resolve) => setTimeout(resolve, wait));
      controller.abort();
      sentence(await running, 'ERR_ABORTED');
      const left = floats(out).slice();
      bitEqual(floats(await model.run(...given)), before);
      bitEqual(floats(out), left); // nobody writes there any more
    }
  });

  test('does not wait for a whole batch before it', async () => {
    const model = await load(digits);
    const order: string[] = [];
    const run = (count: number) =>
      model
        .run(new Generator(1).randn([count, 1, 28, 28]), 1, { class_labels: 3 })
        .then(() => void order.push(`${count}`));
    await Promise.all([run(256), run(256), run(256), run(1)]);
    expect(order[0]).toBe('1');
  });

  test('of a pipeline ends at once, however many others there are', async () => {
    const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
    const controller = new AbortController();
    const order: string[] = [];
    const start = (seed: number, numInferenceSteps: number, signal?: AbortSignal) =>
      pipeline.run({ numInferenceSteps, seed, signal, modelInputs: { class_labels: 3 } });
    const many = Array.from({ length: 25 * getNumThreads() }, (_, seed) => start(seed, 2));
    const others = many.map((run) => run.then(() => void order.push('other')));
    const ended = rejection(() => start(1, 10, controller.signal)).then((error) => (order.push('ended'), error));
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    controller.abort();
    sentence(await ended, 'ERR_ABORTED');
    expect(order).toEqual(['ended']);
    await Promise.all(others);
    await pipeline.dispose();
  });

  test('of a pipeline is not refused for the number of others', async () => {
    const model = await load(scoreGraph());
    const scheduler = new ScoreSdeVeScheduler({ sigmaMax: 5 });
    const pipeline = new ScoreSdeVePipeline({ scheduler, model, sampleShape: shape });
    const run = (seed: number) => pipeline.run({ seed, numInferenceSteps: 6 }).then(({ images }) => floats(images));
    const images = await Promise.all(Array.from({ length: 4000 }, (_, i) => run(i % 2)));
    for (const [i, image] of images.entries()) bitEqual(image, images[i % 2]!);
  });

  test('that waits for its memory ends in its turn, and what comes after it runs', async () => {
    const model = await load(slow, { exact: false });
    const [first, second, third] = [Tensor.zeros(sample.dims), Tensor.zeros(sample.dims), Tensor.zeros(sample.dims)];
    const controller = new AbortController();
    const running = model.run(sample, 1, {}, { out: first });
    const ended = rejection(() => model.run(first, 1, {}, { out: second, signal: controller.signal }));
    const next = model.run(second, 1, {}, { out: third });
    controller.abort();
    sentence(await ended, 'ERR_ABORTED');
    await Promise.all([running, next]);
    bitEqual(floats(first), answer);
    expect(floats(second).every((v) => v === 0)).toBe(true);
    expect(floats(third).every((v) => v === 0)).toBe(true);
  });

  test('of a pipeline names the step that went wrong, and is over when it says so', async () => {
    const scheduler = new ScoreSdeVeScheduler({ sigmaMax: 50 });
    const failureOf = async (model: ScoreModel, more: object = {}) => {
      const pipeline = new ScoreSdeVePipeline({ scheduler, model, sampleShape: shape });
      const generator = new Generator(1, { engine: 'torch' });
      const error = await rejection(() => pipeline.run({ generator, batchSize: 3, numInferenceSteps: 20, ...more }));
      expect(() => generator.getState()).not.toThrow(); // ERR_BUSY while draws wait
      return error;
    };
    const model = await load(rootGraph(shape));
    const one = await failureOf((x, sigma, inputs, context) => model(x, sigma, inputs, context));
    sentence(one, 'ERR_NON_FINITE', /^step 9 of 20 \(sigma 0\.\d+\): the corrector/);
    expect((await failureOf(model)).message).toBe(one.message);
    expect((await failureOf(model, { onStep: () => {} })).message).toBe(one.message);
  });

  test('of a signal that is aborted does not begin', async () => {
    const model = await load(scoreGraph());
    const out = Tensor.zeros(x.dims);
    sentence(await rejection(() => model.run(x, 1, {}, { out, signal: AbortSignal.abort() })), 'ERR_ABORTED');
    expect(floats(out).every((v) => v === 0)).toBe(true);
  });

  test('of a pipeline ends with its signal', async () => {
    const model = await load(slow, { exact: false });
    const pipeline = new ScoreSdeVePipeline({
      scheduler: new ScoreSdeVeScheduler(),
      model,
      sampleShape: [1, 256, 256],
    });
    const controller = new AbortController();
    const running = rejection(() => pipeline.run({ numInferenceSteps: 1000, signal: controller.signal }));
    setTimeout(() => controller.abort(), 100);
    sentence(await running, 'ERR_ABORTED');
    bitEqual(floats(await model.run(sample, 1)), answer);
  });

  test('waits for what writes its sample, and what writes after it waits for it', async () => {
    const model = await load(scoreGraph());
    const big = new Tensor('float32', new Float32Array(4 * 2 ** 18), [2 ** 18, ...shape]);
    const drawn = new Generator(3, { engine: 'torch' }).randnAsync(big.dims, { out: big });
    const score = model.run(big, 2);
    const after = new Generator(4).randnAsync(big.dims, { out: big });
    bitEqual(floats(await score), lin(floats(new Generator(3, { engine: 'torch' }).randn(big.dims)), 2));
    await Promise.all([drawn, after]);
    bitEqual(floats(big), floats(new Generator(4).randn(big.dims)));
  });

  test('[Symbol.asyncDispose]() is dispose()', async () => {
    const model = await load(slow, { exact: false });
    await model[Symbol.asyncDispose]();
    sentence(await rejection(() => model.run(sample, 1)), 'ERR_DISPOSED', /the model is disposed/);
  });

  test('under way is ended by nothing that dispose does', async () => {
    const model = await load(slow, { exact: false });
    const running = model.run(sample, 1);
    const disposed = model.dispose();
    sentence(await rejection(() => model.run(sample, 1)), 'ERR_DISPOSED', /the model is disposed/);
    bitEqual(floats(await running), answer);
    await disposed;
    await model.dispose();
    sentence(
      failure(() => model.prepare(sample.dims, {})),
      'ERR_DISPOSED',
      /the model is disposed/,
    );
  });

  test.each<[string, () => [unknown, unknown, unknown?, unknown?], RegExp, string]>([
    ['no tensor', () => [5, 1], /^sample must be a Tensor/, 'ERR_DTYPE'],
    [
      'other dims',
      () => [new Tensor('float32', new Float32Array(8), [2, 4]), 1],
      /\[batch, 1, 2, 2\].*\[2, 4\]/,
      'ERR_SHAPE',
    ],
    ['too many sigmas', () => [x, [1, 2]], /^sigma .*5 samples, got 2/, 'ERR_SHAPE'],
    ['NaN for sigma', () => [x, NaN], /^sigma must not be NaN/, 'ERR_RANGE'],
    ['an input that is none', () => [x, 1, { y: 1 }], /no input "y"/, 'ERR_MODEL'],
    ['an out of other dims', () => [x, 1, {}, { out: Tensor.empty([4]) }], /^out must have the dims/, 'ERR_SHAPE'],
    ['out in its sample', () => [x, 1, {}, { out: x }], /^out and sample overlap/, 'ERR_ALIAS'],
    ['a disposed sample', () => [disposed(), 1], /^sample is a disposed tensor/, 'ERR_DISPOSED'],
    ['NaN among sigmas', () => [x, Float32Array.of(1, 2, NaN, 4, 5)], /^sigma must not be NaN/, 'ERR_RANGE'],
    ['null for sigma', () => [x, null], /^sigma must be a number/, 'ERR_RANGE'],
    [
      'sigmas of two axes',
      () => [x, new Tensor('float32', [1], [1, 1])],
      /^sigma must have at most one axis/,
      'ERR_SHAPE',
    ],
    ['inputs of null', () => [x, 1, null], /^inputs must be an object of inputs by name, got null/, 'ERR_CONFIG'],
    ['a context of null', () => [x, 1, {}, null], /^context .*got null/, 'ERR_CONFIG'],
    ['a signal that is none', () => [x, 1, {}, { signal: {} }], /^signal must be an AbortSignal/, 'ERR_CONFIG'],
    [
      'out in its sigma',
      () => {
        const memory = new Float32Array(20).fill(1);
        const sigma = new Tensor('float32', memory.subarray(0, 5), [5]);
        return [x, sigma, {}, { out: new Tensor('float32', memory, x.dims) }];
      },
      /^out and sigma overlap/,
      'ERR_ALIAS',
    ],
  ])('refuses %s', async (_, args, says, code) => {
    const model = await load(scoreGraph());
    sentence(await rejection(() => model.run(...(args() as Parameters<OnnxModel['run']>))), code as never, says);
  });
  test('refuses inputs that were prepared for other states', async () => {
    const model = await load(scoreGraph({ inputs: [states, port('timestep'), port('y')] }));
    const prepared = model.prepare([4, ...shape], { y: [1, 2, 3, 4] });
    sentence(
      await rejection(() => model.run(x, 1, prepared)),
      'ERR_SHAPE',
      /prepared for .*\[4, 1, 2, 2\].*\[5, 1, 2, 2\]/,
    );
  });

  test('takes sigma from memory that threads share', async () => {
    const shared = new Float32Array(new SharedArrayBuffer(20));
    shared.set(levels);
    const model = await load(scoreGraph());
    bitEqual(floats(await model.run(x, shared)), expected);
    const buffer = scoreGraph().slice().buffer as ArrayBuffer;
    bitEqual(floats(await (await load(buffer)).run(x, levels)), expected);
    // What shrinks while it is read is a copy of.
    const Resizable = ArrayBuffer as unknown as new (
      length: number,
      options: object,
    ) => ArrayBuffer & { resize(n: number): void };
    const shrinking = new Resizable(scoreGraph().length, { maxByteLength: 2 ** 20 });
    new Uint8Array(shrinking).set(scoreGraph());
    const loading = load(shrinking);
    shrinking.resize(0);
    bitEqual(floats(await (await loading).run(x, levels)), expected);
    structuredClone(buffer, { transfer: [buffer] });
    sentence(await rejection(() => load(buffer)), 'ERR_DISPOSED', /cannot be read/);
    const network = new Uint8Array(new SharedArrayBuffer(scoreGraph().length));
    network.set(scoreGraph());
    bitEqual(floats(await (await load(network)).run(x, levels)), expected);
  });

  test('listens to a signal once, however many share it', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const model = await load(scoreGraph());
    const { signal } = new AbortController();
    const listen = jest.spyOn(signal, 'addEventListener');
    await Promise.all(Array.from({ length: 30 }, () => model.run(x, levels, {}, { signal })));
    expect(listen).toHaveBeenCalledTimes(1);
    expect(warned).not.toHaveBeenCalled();
    warned.mockRestore();
  });

  const disposed = () => {
    const tensor = Tensor.zeros(x.dims);
    tensor.dispose();
    return tensor;
  };
});

describe('what cannot be loaded', () => {
  test.each<[string, unknown, RegExp]>([
    ['nothing', undefined, /network must be a path.*got undefined/],
    ['an empty path', '', /got ""/],
    ['a number', 5, /got 5/],
    ['an array of other numbers', new Float32Array(8), /got a Float32Array/],
  ])('%s: ERR_CONFIG', async (_, network, says) => {
    sentence(await rejection(() => OnnxModel.load(network as string)), 'ERR_CONFIG', says);
  });

  test.each<[string, string | Uint8Array, RegExp]>([
    ['a path to nothing', '/nowhere/model.onnx', /^\/nowhere\/model.onnx: no such file/],
    ['no bytes', new Uint8Array(0), /^the network cannot be loaded: \S/],
    ['other bytes', new Uint8Array(1000).fill(7), /^the network cannot be loaded: \S/],
    ['half of a network', scoreGraph().slice(0, 100), /^the network cannot be loaded: \S/],
    ['a network of no score', scoreGraph({ inputs: [states] }), /timestep/],
    [
      'a timestep of images',
      scoreGraph({ inputs: [states, port('timestep', 'float32', ['batch', 1, 2, 2])] }),
      /a number for each as their noise level, got .*timestep \(float32 \[batch, 1, 2, 2\]\)/,
    ],
    [
      'a batch that no memory holds',
      scoreGraph({ inputs: [port('sample', 'float32', [2 ** 40, 1, 2, 2]), port('timestep')] }),
      /takes 1099511627776 samples a call.*at most 4096/,
    ],
  ])('%s: ERR_MODEL', async (_, network, says) => {
    sentence(await rejection(() => OnnxModel.load(network)), 'ERR_MODEL', says);
  });

  test.each<[string, unknown, string, RegExp]>([
    ['an unknown option', { threads: 2 }, 'ERR_CONFIG', /unknown option "threads"; expected .*intraOpThreads/],
    ['a device that is none', { device: 'tpu' }, 'ERR_CONFIG', /device must be .*got "tpu"/],
    ['a device that is not there', { device: 'cuda:9' }, 'ERR_CUDA_UNAVAILABLE', /cuda:9/],
    ['no thread', { intraOpThreads: 0 }, 'ERR_RANGE', /^intraOpThreads .*got 0/],
    ['half a thread', { interOpThreads: 1.5 }, 'ERR_RANGE', /^interOpThreads .*got 1.5/],
    ['an unknown optimization', { graphOptimization: 'fast' }, 'ERR_CONFIG', /^graphOptimization .*got "fast"/],
    ['exact of a number', { exact: 1 }, 'ERR_CONFIG', /^exact must be .*got 1/],
    ['settings in an array', { sessionConfig: ['a'] }, 'ERR_CONFIG', /^sessionConfig must be/],
    ['a sampleShape that is none', { sampleShape: 'abc' }, 'ERR_SHAPE', /^sampleShape must be/],
    ['a sampleShape of 0', { sampleShape: [1, 0, 4] }, 'ERR_SHAPE', /^sampleShape must hold positive sizes/],
    ['settings of null', { sessionConfig: { a: null } }, 'ERR_CONFIG', /^sessionConfig must be/],
    ['a graph on the shared stream', { providerOptions: { enable_cuda_graph: 1 } }, 'ERR_CONFIG', /enable_cuda_graph/],
    [
      'weights in bytes that are not kept',
      { sessionConfig: { 'session.use_ort_model_bytes_directly': '1' } },
      'ERR_CONFIG',
      /use_ort_model_bytes_directly.*not kept/,
    ],
    ['a library that is none', { libraryPath: 5 }, 'ERR_CONFIG', /^libraryPath must be .*got 5/],
  ])('%s', async (_, options, code, says) => {
    sentence(await rejection(() => OnnxModel.load(scoreGraph(), options as never)), code as never, says);
  });

  test('options are heard', async () => {
    for (const graphOptimization of ['disabled', 'basic', 'extended', 'all'] as const) {
      const sessionConfig = { 'session.intra_op.allow_spinning': false };
      const model = await load(scoreGraph(), {
        graphOptimization,
        intraOpThreads: 1,
        interOpThreads: 2,
        sessionConfig,
      });
      bitEqual(floats(await model.run(x, levels)), expected);
    }
  });
});

describe('the library', () => {
  /** A shared library from C. */
  async function compiled(name: string, source: string): Promise<string> {
    const file = join(await temporaryFolder(), name);
    await writeFile(`${file}.c`, source);
    execFileSync('cc', ['-shared', '-fPIC', '-o', file, `${file}.c`]);
    return file;
  }
  const runtime = (version: string, api: string) => `
    static const void* get(unsigned version) { return ${api}; }
    static const char* name(void) { return "${version}"; }
    static struct { const void* (*get)(unsigned); const char* (*name)(void); } base = {get, name};
    const void* OrtGetApiBase(void) { return &base; }`;

  const broken: [string, () => string | Promise<string>, RegExp][] = [
    [
      'is not there',
      () => '/nowhere/libonnxruntime.so',
      /^the network cannot be loaded: \/nowhere\/libonnxruntime.so is not/,
    ],
    ['is another', nativePath, /it has no OrtGetApiBase; install onnxruntime-node/],
    ['is too old', () => compiled('old.so', runtime('1.16.3', '0')), /its version is 1.16.3, and 1.18 is needed/],
    ['has a version that is none', () => compiled('odd.so', runtime('unknown', '0')), /its version is unknown/],
    ['has no interface', () => compiled('bare.so', runtime('1.30.0', '0')), /it has no interface of version 18/],
    [
      'has an interface of nothing',
      () => compiled('gaps.so', `static const void* table[512];${runtime('1.30.0', 'table')}`),
      /its interface has gaps/,
    ],
    [
      'has no version',
      () => compiled('nameless.so', runtime('', '0').replace('return "";', 'return 0;')),
      /its version is /,
    ],
    [
      'has no base',
      () => compiled('baseless.so', 'const void* OrtGetApiBase(void) { return 0; }'),
      /OrtGetApiBase that is none/,
    ],
    [
      'is no library',
      async () => {
        const file = join(await temporaryFolder(), 'libonnxruntime.so');
        await writeFile(file, 'no library');
        return file;
      },
      /libonnxruntime.so is not a usable ONNX Runtime/,
    ],
  ];
  test.each(broken)('that %s: ERR_MODEL with the remedy', async (_, file, says) => {
    const error = await rejection(async () => OnnxModel.load(scoreGraph(), { libraryPath: await file() }));
    sentence(error, 'ERR_MODEL', says, /install onnxruntime-node 1.22 or later/);
  });

  test('may be named', async () => {
    const folder = await temporaryFolder();
    const { path } = findLibrary();
    await symlink(path, join(folder, basename(path)));
    const model = await load(scoreGraph(), { libraryPath: join(folder, basename(path)) });
    bitEqual(floats(await model.run(x, levels)), expected);
  });

  test('is named by SCORE_SDE_ONNXRUNTIME', async () => {
    const script = `await sde.ScoreSdeVePipeline.fromPretrained('digits').catch(({ code, message }) => console.log(code, message));`;
    const said = await run(script, { SCORE_SDE_ONNXRUNTIME: '/nowhere/libonnxruntime.so' });
    expect(said).toMatch(/^ERR_MODEL .*\/nowhere\/libonnxruntime.so is not a usable ONNX Runtime/);
  });

  test('of the application comes before that of this package', async () => {
    const folder = await temporaryFolder();
    const home = join(folder, 'node_modules', 'onnxruntime-node');
    const bin = join(home, 'bin', 'napi-v6', process.platform, process.arch);
    await mkdir(bin, { recursive: true });
    await writeFile(
      join(home, 'package.json'),
      '{"name": "onnxruntime-node", "version": "9.9.9", "main": "dist/index.js"}',
    );
    await mkdir(join(home, 'dist'));
    await writeFile(join(home, 'dist', 'index.js'), '');
    const file = join(bin, basename(findLibrary().path));
    await writeFile(file, 'no library');
    await writeFile(join(folder, 'app.js'), '');
    const argv = process.argv[1];
    process.argv[1] = join(folder, 'app.js');
    try {
      expect(findLibrary()).toEqual({ path: file, shared: true });
    } finally {
      process.argv[1] = argv!;
    }
  });

  test.each([
    [
      'is not there',
      undefined,
      /^ERR_CUDA_UNAVAILABLE the CUDA provider of ONNX Runtime [\d.]+ is not there: .*_cuda.so/,
    ],
    ['is of another version', '\0one\x001.2.3\0', /^ERR_CUDA_UNAVAILABLE the CUDA provider .* is of version 1.2.3$/],
    ['is of no known version', '\x001.2\x001.2.3.\0', /^good$/],
    ['is of its version', `\0${ort.env.versions.node}\0`, /^good$/],
  ])('whose CUDA provider %s', async (_, provider, says) => {
    const folder = await temporaryFolder();
    const { path } = findLibrary();
    const library = join(folder, basename(path));
    await symlink(path, library);
    if (provider !== undefined) await writeFile(join(folder, 'libonnxruntime_providers_cuda.so'), provider);
    const said = await run(`
      const { native } = require('./dist/native/addon');
      await native.checkProviderAsync(${JSON.stringify(library)}, false)
        .then(() => console.log('good'), ({ code, message }) => console.log(code, message));`);
    expect(said).toMatch(says);
  });

  const model = `const model = await sde.OnnxModel.load(${JSON.stringify(digits)}, { exact: false });
    const sample = new sde.Generator(1).randn([2, 1, 28, 28]);
    const run = () => model.run(sample, 1, { class_labels: 3 });`;
  const session = `const ort = require('onnxruntime-node');
    const session = await ort.InferenceSession.create(${JSON.stringify(digits)});`;
  const mapped = `console.log(new Set(require('node:fs').readFileSync('/proc/self/maps', 'utf8')
    .split('\\n').filter((line) => /libonnxruntime/.test(line)).map((line) => line.split(' ').at(-1))).size);`;
  test.each([
    ['before onnxruntime-node', `${model} await run(); ${session} await run(); await session.release(); ${mapped}`],
    [
      'after onnxruntime-node',
      `${session} ${model} await run(); await session.release(); await model.dispose(); ${mapped}`,
    ],
    ['and neither is given back', `${session} ${model} await run(); ${mapped}`],
    ['and a run is left behind', `${model} run(); ${mapped}`],
    ['and the process is ended in a run', `${model} run(); setTimeout(() => { ${mapped} process.exit(0); }, 1);`],
  ])('is loaded once, %s', async (_, script) => {
    const { stdout, stderr } = await outputs(script);
    expect({ stdout: stdout.trim(), stderr }).toEqual({ stdout: process.platform === 'linux' ? '1' : '', stderr: '' });
  });

  test('serves worker threads, which may be terminated in a run', async () => {
    const body = `async () => {
      const model = await sde.OnnxModel.load(${JSON.stringify(digits)}, { exact: false });
      const sample = new sde.Generator(1).randn([4, 1, 28, 28]);
      const run = () => model.run(sample, 1, { class_labels: 3 });
      parentPort.postMessage((await run()).data.reduce((a, b) => a + b, 0));
      for (;;) await Promise.all([run(), run(), run()]);
    }`;
    const said = await run(`
      const sums = new Set();
      for (let round = 0; round < 3; round++) {
        const workers = [0, 1, 2].map(() => inWorker(${JSON.stringify(body)}));
        await Promise.all(workers.map((worker) => new Promise((resolve, reject) =>
          worker.on('message', (sum) => resolve(sums.add(sum))).on('error', reject))));
        await new Promise((resolve) => setTimeout(resolve, 20 * round));
        await Promise.all(workers.map((worker) => worker.terminate()));
      }
      ${model}
      const score = await model.run(new sde.Generator(1).randn([4, 1, 28, 28]), 1, { class_labels: 3 });
      sums.add(score.data.reduce((a, b) => a + b, 0));
      console.log(sums.size);`);
    expect(said).toBe('1');
  });
});

test('thousands of runs take no more memory', async () => {
  const said = await run(`
    const model = await sde.OnnxModel.load(${JSON.stringify(digits)}, { exact: false });
    const pipeline = new sde.ScoreSdeVePipeline({ scheduler: new sde.ScoreSdeVeScheduler(), model, sampleShape: [1, 28, 28] });
    const some = async (numInferenceSteps) => {
      await pipeline.run({ numInferenceSteps, modelInputs: { class_labels: 1 } });
      const controller = new AbortController();
      setTimeout(() => controller.abort(), 5);
      await pipeline.run({ numInferenceSteps, modelInputs: { class_labels: 1 }, signal: controller.signal }).catch(() => {});
    };
    await some(300);
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 5; i++) await some(200);
    console.log((process.memoryUsage().rss - before) / 2 ** 20);`);
  expect(Number(said)).toBeLessThan(24);
});

test('the formulas of the golden vectors as networks are those in JavaScript', async () => {
  const specs = [
    { name: 'toy' },
    { name: 'gauss', mu: 0.5 },
    {
      name: 'gmm',
      weights: [0.5, 0.3, 0.2],
      means: [
        [2, 0],
        [-1.5, 1.5],
        [0, -2],
      ] as [number, number][],
      stds: [0.3, 0.2, 0.5],
    },
  ];
  for (const spec of specs) {
    const sample = new Generator(1).randn([64, 2, 1, 1]);
    const model = await load(formulaGraph(spec, [2, 1, 1]));
    const score = formula(spec)(floats(sample), 0.5);
    expect(maxAbsDiff(floats(await model.run(sample, 0.5)), score)).toBeLessThan(1e-5);
  }
});
