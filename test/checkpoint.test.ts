import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  Generator,
  ScoreSdeError,
  ScoreSdeVePipeline,
  Tensor,
  type ErrorCode,
  type ModelInputs,
  type RunOptions,
  type ScoreModel,
  type StepsOptions,
} from '../lib';
import { Batch } from '../lib/sampling/batch';
import { decode } from '../lib/sampling/checkpoint';
import { Lane } from '../lib/sampling/lane';
import { readSafetensors, writeSafetensors } from '../lib/sampling/safetensors';
import { run as inProcess } from './support/child';
import { cudaDevices, devices, elementsOf } from './support/devices';
import { toHalf } from './support/edge';
import { removeFolders, temporaryFolder } from './support/folders';
import { bitEqual } from './support/golden';
import { failure, rejection, sentence } from './support/refusals';
import {
  isAdaptive,
  laneOf,
  mixture,
  pipelineOn,
  sampleShape,
  samplesOf,
  solverCases,
  streams,
  type Streams,
} from './support/requests';

afterAll(removeFolders);

/** The file of a run at each of its stages: `saves` are made one after the other, each at the next stage. */
async function everyStage(pipeline: ScoreSdeVePipeline, options: StepsOptions): Promise<Uint8Array[]> {
  const run = pipeline.start(options);
  const files: Uint8Array[] = [];
  for (;;) {
    const bytes = await run.save().catch(() => undefined);
    if (bytes === undefined) break;
    files.push(bytes);
  }
  await run.result;
  return files;
}

const callsOf = (bytes: Uint8Array): number => Math.max(...decode(bytes).places.map(({ calls }) => calls));

describe.each(devices)('on %s', (device) => {
  const pipeline = pipelineOn(device);
  const another = () => pipelineOn(device);
  const elsewhere = pipelineOn(device === 'cpu' ? (cudaDevices[0] ?? 'cpu') : 'cpu');

  describe.each<Streams>(['seed', 'torch'])('streams: %s', (kind) => {
    test.each(solverCases)('saved at every stage: $name', async ({ options }) => {
      const isOneByOne = isAdaptive(options);
      const rows = 2;
      const given = () => ({
        ...options,
        batchSize: rows,
        ...streams(kind, 7, rows),
        modelInputs: { shift: [0.1, 0.3] },
      });
      const whole = await pipeline.run(given());
      const expected = await elementsOf(whole.samples);
      const files = await everyStage(pipeline, given());
      const at = files.map(callsOf);
      // On another device the run has the same files, to the byte.
      if (elsewhere.device !== device) expect(await everyStage(elsewhere, given())).toEqual(files);
      expect(at[0]).toBe(0);
      // Each stage, but for those that an adaptive solver makes without a call; and the end, after the last one.
      if (!isOneByOne) expect(at).toEqual(Array.from({ length: whole.calls + 1 }, (_, i) => i));
      else expect(new Set(at).size).toBeGreaterThanOrEqual(whole.calls - 1);
      for (const [i, bytes] of files.entries()) {
        const place = [another(), elsewhere][i % 2]!;
        const resumed = await place.resume(bytes).result;
        bitEqual(await elementsOf(resumed.samples), expected);
        expect([resumed.calls, resumed.steps, resumed.seed]).toEqual([whole.calls, whole.steps, whole.seed]);
      }
    });
  });

  test.each(solverCases)('saved while its steps are read: $name', async ({ options }) => {
    const given = () => ({ ...options, seed: 3, modelInputs: { shift: 0.2 } });
    const whole = await pipeline.run(given());
    const files: Uint8Array[] = [];
    const run = pipeline.start(given());
    for await (const step of run) {
      files.push(await run.save());
      expect(callsOf(files.at(-1)!)).toBe(step.calls);
    }
    expect(files).toHaveLength(whole.steps);
    for (const bytes of files) {
      const resumed = await pipeline.resume(bytes).result;
      bitEqual(await elementsOf(resumed.samples), await elementsOf(whole.samples));
      expect([resumed.calls, resumed.steps]).toEqual([whole.calls, whole.steps]);
    }
  });

  test.each([2, 6])('asked for while a run of %d calls is some ahead: as soon as may be', async (calls) => {
    const given = () => ({ calls, seed: 3, modelInputs: { shift: 0.2 } });
    const expected = await samplesOf(pipeline, given());
    for (let step = 1; step <= calls; step++) {
      let saved: Promise<Uint8Array> | undefined;
      const onProgress = (told: { step: number }) => {
        if (told.step === step) saved = run.save({ stop: true });
      };
      const run = pipeline.start({ ...given(), onProgress });
      expect((await rejection(() => run.result)).code).toBe('ERR_ABORTED');
      bitEqual(await elementsOf((await pipeline.resume((await saved)!).result).samples), expected);
    }
  });

  test('in a batch, beside other lanes', async () => {
    for (const { options } of solverCases) {
      const given = { ...options, seed: 5, batchSize: isAdaptive(options) ? 1 : 2, modelInputs: { shift: 0.4 } };
      const expected = await samplesOf(pipeline, given);
      const files = await everyStage(pipeline, given);
      const saved = decode(files[Math.floor(files.length / 2)]!);
      const batch = new Batch({ model: mixture, sampleShape, capacity: 6, device });
      const other = { seed: 1, modelInputs: { shift: 0 } };
      await batch.join(laneOf(pipeline, { solver: 'pc', numInferenceSteps: 40, ...other }));
      await batch.join(laneOf(pipeline, { solver: 'lms', numInferenceSteps: 50, ...other }));
      await batch.advance();
      const { solver, levels, noise, inputs, dims, places, x, history, base, low } = saved;
      const tensor = (values: Float32Array) => ({ data: values, dims });
      const state = { x: tensor(x), history: history.map(tensor), base: base && tensor(base), low: low && tensor(low) };
      const lane = new Lane({ solver, levels, noise: noise as never, inputs, rows: dims[0]!, place: places[0] });
      await batch.join(lane, state);
      while (!lane.done) await batch.advance();
      await batch.settle();
      bitEqual(await elementsOf(batch.state(lane).x), expected);
      await batch.dispose();
    }
  });

  test.each(['float16', 'bfloat16'] as const)('a run that began with a %s sample', async (type) => {
    const sample = toHalf(new Generator(1).randn([2, ...sampleShape]), type);
    const given = { solver: 'dpmpp_2m_sde', numInferenceSteps: 5, sample, seed: 2 };
    const expected = await samplesOf(pipeline, given);
    for (const bytes of await everyStage(pipeline, given))
      bitEqual(await elementsOf((await another().resume(bytes).result).samples), expected);
  });

  test('a noiseSampler is given again', async () => {
    const noise = () => {
      const generator = new Generator(4);
      return () => generator.randn([1, ...sampleShape]);
    };
    const sample = new Generator(1).randn([1, ...sampleShape]);
    const given = () => ({ solver: 'euler_ancestral', numInferenceSteps: 5, sample, noiseSampler: noise() });
    const expected = await samplesOf(pipeline, given());
    const run = pipeline.start(given());
    const bytes = await run.save({ stop: true });
    sentence(
      failure(() => pipeline.resume(bytes)),
      'ERR_CONFIG',
      /drew from a noiseSampler: give it again/,
    );
    bitEqual(await elementsOf((await pipeline.resume(bytes, { noiseSampler: noise() }).result).samples), expected);
    const seeded = await pipeline.start({ numInferenceSteps: 2 }).save();
    sentence(
      failure(() => pipeline.resume(seeded, { noiseSampler: noise() })),
      'ERR_CONFIG',
      /takes no noiseSampler/,
    );
  });
});

describe('the rest of a run', () => {
  test('another process with another number of threads', async () => {
    const folder = await temporaryFolder();
    // Big enough for all threads to take part.
    const setup = `
      const { readFileSync, writeFileSync } = require('node:fs');
      const model = (sample, sigma) => ({ dims: sample.dims, data: sample.data.map((v, i) => (0.5 - v) / (0.01 + sigma.data[0] ** 2)) });
      const scheduler = new sde.ScoreSdeVeScheduler({ numTrainTimesteps: 5, sigmaMax: 8 });
      const pipeline = new sde.ScoreSdeVePipeline({ scheduler, model, sampleShape: [3, 100, 101], device: 'cpu' });
      const sum = async (run) => require('node:crypto').createHash('sha256').update((await run.result).samples.data).digest('hex');`;
    const engines = ['philox', 'torch'];
    const first = await inProcess(
      `${setup}
       const out = [];
       for (const engine of ${JSON.stringify(engines)}) for (const solver of ['pc', 'er_sde']) {
         const run = pipeline.start({ solver, numInferenceSteps: 5, batchSize: 2, generator: new sde.Generator(1, { engine }) });
         await run.save(); await run.save();
         writeFileSync(${JSON.stringify(folder)} + '/' + engine + solver, await run.save());
         out.push(await sum(run));
       }
       console.log(out.join());`,
      { SCORE_SDE_NUM_THREADS: '1' },
    );
    const second = await inProcess(
      `${setup}
       const out = [];
       for (const engine of ${JSON.stringify(engines)}) for (const solver of ['pc', 'er_sde'])
         out.push(await sum(pipeline.resume(readFileSync(${JSON.stringify(folder)} + '/' + engine + solver))));
       console.log(out.join());`,
      { SCORE_SDE_NUM_THREADS: '3' },
    );
    expect(second).toBe(first);
    expect(new Set(first.split(',')).size).toBe(4);
  });

  test('progress and steps go on with the same numbers', async () => {
    const pipeline = pipelineOn('cpu');
    const options = { solver: 'heun', numInferenceSteps: 4, seed: 1 };
    const whole: unknown[] = [];
    await pipeline.run({ ...options, onProgress: (progress) => whole.push(progress) });
    const files = await everyStage(pipeline, options);
    const rest: unknown[] = [];
    await pipeline.resume(files[3]!, { onProgress: (progress) => rest.push(progress) }).result;
    expect(rest).toEqual(whole.slice(1));
    const steps: number[][] = [];
    for await (const { index, total, calls } of pipeline.resume(files[2]!)) steps.push([index, total, calls]);
    expect(steps).toEqual([
      [1, 4, 4],
      [2, 4, 6],
      [3, 4, 7],
    ]);
  });
});

describe('model inputs', () => {
  const inputs = {
    number: 3,
    label: [1, 2],
    big: 2n ** 60n,
    bigs: [1n, -2n],
    flag: true,
    odd: NaN,
    zero: -0,
    floats: Float32Array.of(0.1, -0),
    longs: BigInt64Array.of(-1n, 2n ** 62n),
    bytes: Uint8Array.of(1, 2),
    shorts: Int16Array.of(-1, 2),
    tensor: new Tensor('float64', Float64Array.of(1 / 3, 2, 3, 4), [2, 2]),
    half: { type: 'bfloat16', data: Uint16Array.of(1, 2, 3, 4), dims: [2, 2] },
    mask: { type: 'bool', data: Uint8Array.of(1, 0), dims: [2, 1] },
    plain: { data: [1, 2n, true, Infinity], dims: [2, 2] },
    'a name with a "quote"': 1,
    ['__proto__']: 2,
  } as unknown as ModelInputs;

  test('come back as what they were', async () => {
    const seen: ModelInputs[] = [];
    const model: ScoreModel = (sample, sigma, given) => {
      seen.push(given!);
      return mixture(sample, sigma, {});
    };
    const pipeline = pipelineOn('cpu', model);
    const bytes = await pipeline
      .start({ numInferenceSteps: 1, seed: 1, batchSize: 2, modelInputs: inputs })
      .save({ stop: true });
    seen.length = 0;
    await pipeline.resume(bytes).result;
    const [restored] = seen;
    expect(Object.keys(restored!).sort()).toEqual(Object.keys(inputs).sort());
    for (const [name, value] of Object.entries(inputs)) {
      const got = restored![name];
      if (value instanceof Tensor) {
        const { data, dims, type } = value;
        const { data: elements, ...rest } = got as { data: Float64Array };
        bitEqual(elements, data as Float64Array);
        expect(rest).toEqual({ type, dims: [...dims] });
      } else {
        expect(got).toEqual(value);
      }
    }
    await pipeline.resume(bytes, { modelInputs: { number: 4 } }).result;
    expect(seen.at(-1)).toEqual({ number: 4 });
  });

  test.each<[string, unknown]>([
    ['a function', () => 1],
    ['an object', { guidance: 1 }],
    ['a list of objects', [{}]],
    ['a Map', new Map()],
  ])('%s cannot be saved, and the run goes on', async (_, value) => {
    const pipeline = pipelineOn('cpu');
    const run = pipeline.start({ numInferenceSteps: 2, seed: 1, modelInputs: { thing: value } as never });
    sentence(await rejection(() => run.save()), 'ERR_CONFIG', /modelInputs.thing cannot be saved, got /);
    await run.result;
  });
});

describe('the file', () => {
  const pipeline = pipelineOn('cpu');
  const options: StepsOptions = {
    solver: 'er_sde',
    numInferenceSteps: 4,
    seed: -1,
    batchSize: 2,
    modelInputs: { shift: [0, 1] },
  };
  let bytes: Uint8Array;
  beforeAll(async () => {
    bytes = (await everyStage(pipeline, options))[2]!;
  });

  test('is a safetensors file: texts for metadata, tensors side by side from the header to the end', () => {
    const file = Buffer.from(bytes);
    const start = 8 + Number(file.readBigUInt64LE(0));
    expect(start % 8).toBe(0);
    expect(file[8]).toBe(0x7b);
    const text = file.toString('utf8', 8, start);
    expect(text).toMatch(/} *$/);
    const { __metadata__: metadata, ...tensors } = JSON.parse(text) as {
      __metadata__: Record<string, unknown>;
      [name: string]: Record<string, any>;
    };
    for (const value of Object.values(metadata)) expect(typeof value).toBe('string');
    expect(Object.keys(metadata).sort()).toEqual(
      ['dataRange', 'format', 'inputs', 'levels', 'package', 'places', 'seed', 'solver', 'streams', 'version'].sort(),
    );
    expect(metadata).toMatchObject({ format: 'score-sde run', version: '1', seed: `"${2n ** 64n - 1n}"` });
    expect(metadata.package).toBe(
      (JSON.parse(readFileSync(join(__dirname, '..', 'package.json'), 'utf8')) as { version: string }).version,
    );
    let end = 0;
    for (const { dtype, shape, data_offsets: offsets } of Object.values(tensors)) {
      expect(offsets[0]).toBe(end);
      expect(offsets[1] - offsets[0]).toBe(
        ({ F32: 4, F64: 8 } as Record<string, number>)[dtype]! * shape.reduce((a: number, b: number) => a * b, 1),
      );
      end = offsets[1];
    }
    expect(start + end).toBe(file.length);
    expect(Object.keys(tensors).sort()).toEqual(['history.1', 'history.2', 'x']);
  });

  test('holds nothing that was not computed', async () => {
    const [first] = await everyStage(pipeline, options);
    expect([...readSafetensors(first!).tensors.keys()]).toEqual(['x']);
    // The same run gives the same file.
    expect(Buffer.compare((await everyStage(pipeline, options))[2]!, bytes)).toBe(0);
  });

  test('may lie anywhere in memory', async () => {
    const shifted = new Uint8Array(bytes.length + 3).subarray(3);
    shifted.set(bytes);
    bitEqual(await elementsOf((await pipeline.resume(shifted).result).samples), await samplesOf(pipeline, options));
    bitEqual(
      await elementsOf((await pipeline.resume(Buffer.from(bytes)).result).samples),
      await samplesOf(pipeline, options),
    );
  });

  /** The file with other metadata. */
  const withMetadata = (change: (metadata: Record<string, any>) => object | undefined) => () => {
    const { tensors, metadata } = readSafetensors(bytes);
    const parsed = Object.fromEntries(
      Object.entries(metadata).map(([key, value]) => [
        key,
        key === 'format' || key === 'package' ? value : JSON.parse(value),
      ]),
    ) as Record<string, any>;
    const changed = { ...parsed, ...change(parsed) };
    const texts = Object.entries(changed)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [
        key,
        typeof value === 'string' && !['streams', 'seed'].includes(key) ? value : JSON.stringify(value),
      ]);
    return writeSafetensors({ tensors, metadata: Object.fromEntries(texts) as Record<string, string> });
  };
  const header =
    (text: string, rest = 0) =>
    () => {
      const file = Buffer.alloc(8 + Buffer.byteLength(text) + rest);
      file.writeBigUInt64LE(BigInt(Buffer.byteLength(text)), 0);
      file.write(text, 8);
      return file;
    };
  const withTensors = (change: (tensors: Map<string, any>) => void) => () => {
    const { tensors, metadata } = readSafetensors(bytes);
    const changed = new Map(tensors);
    change(changed);
    return writeSafetensors({ tensors: changed, metadata });
  };

  const wrong: [string, () => unknown, RegExp, ErrorCode?][] = [
    ['no bytes', () => new Uint8Array(0), /safetensors file: it has 0 bytes/],
    ['a text', () => Buffer.from('hello, world, this is a text'), /does not begin as one/],
    ['a PNG', () => Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ', 'base64'), /does not begin as one/],
    [
      'an ONNX network',
      () => readFileSync(join(__dirname, '..', 'models/digits/unet/model.onnx')),
      /does not begin as one/,
    ],
    [
      "the golden vectors' container",
      () => readFileSync(join(__dirname, 'golden/solvers/euler.safetensors')),
      /saved run of this package, got a safetensors file of "another kind"/,
    ],
    ['a list for a header', header('{"a":1} x'), /no JSON/],
    ['null for a tensor', header('{"x":null}'), /tensor x is not described/],
    ['numbers for metadata', header('{"__metadata__":{"format":1}}'), /metadata are no texts/],
    [
      'a tensor of an unknown type',
      header('{"x":{"dtype":"F8","shape":[1],"data_offsets":[0,1]}}', 1),
      /tensor x is not described/,
    ],
    [
      'a tensor of another size',
      header('{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', 4),
      /tensor x has another size/,
    ],
    [
      'offsets that go backwards',
      header('{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', 4),
      /tensor x has another size/,
    ],
    ['bytes after the tensors', () => Buffer.concat([bytes, Buffer.alloc(4)]), /4 bytes after its tensors/],
    [
      'a later format',
      withMetadata(() => ({ version: 2, package: '9.9.9' })),
      /format 1 at most, got 2, which score-sde 9.9.9 wrote/,
    ],
    ['no version', withMetadata(() => ({ version: undefined })), /format 1 at most, got undefined/],
    [
      'an unknown solver',
      withMetadata(({ solver }) => ({ solver: { ...solver, name: 'magic' } })),
      /solver cannot be read: there is no solver "magic"/,
    ],
    [
      "another solver's options",
      withMetadata(({ solver }) => ({ solver: { ...solver, options: { snr: 1 } } })),
      /solver cannot be read: .*no option "snr"/,
    ],
    ['no solver', withMetadata(() => ({ solver: null })), /solver cannot be read/],
    ['no levels', withMetadata(() => ({ levels: [] })), /levels cannot be read/],
    [
      'levels that are no numbers',
      withMetadata(({ levels }) => ({ levels: { ...levels, sigma: ['8', 4, 2, 1] } })),
      /levels cannot be read/,
    ],
    [
      'levels of other lengths',
      withMetadata(({ levels }) => ({ levels: { ...levels, next: [0] } })),
      /levels cannot be read/,
    ],
    [
      'a position of NaN',
      withMetadata(() => ({ places: [{ position: NaN, calls: 2, steps: 2 }] })),
      /places cannot be read: .*position.*got null/,
    ],
    [
      'a position beyond the end',
      withMetadata(() => ({ places: [{ position: 4, calls: 2, steps: 2 }] })),
      /places cannot be read: .*below its 4 stages, got 4/,
    ],
    [
      'a position that is no stage',
      withMetadata(() => ({ places: [{ position: 1.5, calls: 2, steps: 2 }] })),
      /places cannot be read/,
    ],
    [
      'calls of -1',
      withMetadata(() => ({ places: [{ position: 1, calls: -1, steps: 2 }] })),
      /places cannot be read: got -1 calls/,
    ],
    ['no places', withMetadata(() => ({ places: [] })), /places cannot be read/],
    ['a stream short', withMetadata(({ streams: all }) => ({ streams: [...all, all[0]] })), /streams cannot be read/],
    [
      'a stream that is none',
      withMetadata(() => ({ streams: [{ seed: 'x', offset: '0' }] })),
      /streams cannot be read/,
    ],
    [
      'a cut torch state',
      withMetadata(() => ({ streams: [{ torch: 'AAAA' }] })),
      /streams cannot be read: .*5056 bytes/,
    ],
    ['a seed that is none', withMetadata(() => ({ seed: 'x' })), /seed cannot be read/],
    ['inputs that are none', withMetadata(() => ({ inputs: 5 })), /inputs cannot be read/],
    ['a data range that is none', withMetadata(() => ({ dataRange: [1, 0] })), /dataRange cannot be read/],
    ['no x', withTensors((tensors) => tensors.delete('x')), /no samples x/],
    [
      'x in doubles',
      withTensors((tensors) => tensors.set('x', { dtype: 'F64', shape: [2, 6], data: new Uint8Array(96) })),
      /tensor x must be F32/,
    ],
    [
      'a history of another shape',
      withTensors((tensors) => tensors.set('history.1', { dtype: 'F32', shape: [6], data: new Uint8Array(24) })),
      /tensor history.1 must be F32 \[2, 6\]/,
    ],
    ['a history short', withTensors((tensors) => tensors.delete('history.1')), /has no tensor history.1/],
    ['no bytes at all', () => undefined, /must be a Uint8Array of its bytes, got undefined/],
    ['a path', () => 'run.safetensors', /must be a Uint8Array/],
    ['doubles', () => new Float64Array(40), /must be a Uint8Array/],
  ];
  test.each(wrong)('%s is refused', (_, make, says, code = 'ERR_CONFIG') => {
    sentence(
      failure(() => pipeline.resume(make() as Uint8Array)),
      code,
      says,
    );
  });

  test('every cut is refused', () => {
    for (let length = 0; length < bytes.length; length += length < 24 || length > bytes.length - 24 ? 1 : 37)
      sentence(
        failure(() => pipeline.resume(bytes.subarray(0, length))),
        'ERR_CONFIG',
        /it has \d bytes|it is cut short/,
      );
  });

  test('a damaged byte is refused by name, or gives another run', () => {
    for (let at = 0; at < bytes.length; at += 7) {
      const damaged = bytes.slice();
      damaged[at]! ^= 0x15;
      try {
        pipeline.resume(damaged).abort();
      } catch (error) {
        expect(error).toBeInstanceOf(ScoreSdeError);
      }
    }
  });

  test("samples of another shape than the pipeline's are refused", () => {
    const other = pipelineOn('cpu', mixture, [2, 3]);
    sentence(
      failure(() => other.resume(bytes)),
      'ERR_SHAPE',
      /samples \[2, 3\], got samples of \[6\]/,
    );
  });

  test('options that are none are refused', () => {
    sentence(
      failure(() => pipeline.resume(bytes, { seed: 1 } as never)),
      'ERR_CONFIG',
      /unknown option "seed"/,
    );
    sentence(
      failure(() => pipeline.resume(bytes, { signal: 5 } as never)),
      'ERR_CONFIG',
      /signal/,
    );
  });
});

describe('save', () => {
  const pipeline = pipelineOn('cpu');
  const options = { solver: 'er_sde', numInferenceSteps: 5, seed: 1 };
  const expected = () => samplesOf(pipeline, options);
  const goesOn = async (bytes: Uint8Array) =>
    bitEqual(await elementsOf((await pipeline.resume(bytes).result).samples), await expected());

  test('before the first stage, and the run goes on', async () => {
    const run = pipeline.start(options);
    const bytes = await run.save();
    expect(callsOf(bytes)).toBe(0);
    await goesOn(bytes);
    bitEqual(await elementsOf((await run.result).samples), await expected());
  });

  test('twice at once', async () => {
    const run = pipeline.start(options);
    const [a, b] = await Promise.all([run.save(), run.save()]);
    expect(Buffer.compare(a, b)).toBe(0);
    await goesOn(a);
    await run.result;
  });

  test('with stop the run ends', async () => {
    const run = pipeline.start(options);
    await goesOn(await run.save({ stop: true }));
    const error = await rejection(() => run.result);
    sentence(error, 'ERR_ABORTED');
    expect(String(error.cause)).toMatch(/saved/);
  });

  test('while a step is read, without waiting for it, and the run goes on meanwhile', async () => {
    const files: Promise<Uint8Array>[] = [];
    const run = pipeline.start(options);
    for await (const _ of run) for (let i = 0; i < 3; i++) files.push(run.save());
    expect(files).toHaveLength(15);
    for (const [i, file] of files.entries()) {
      expect(callsOf(await file)).toBe(1 + Math.floor(i / 3));
      await goesOn(await file);
    }
  });

  test('after the last step is read: it holds the sample', async () => {
    for (const solver of ['pc', 'langevin', 'euler_ancestral']) {
      const given = {
        solver,
        numInferenceSteps: 3,
        seed: 1,
        ...(solver === 'langevin' ? { compat: 'score_sde' as const } : {}),
      };
      const run = pipeline.start(given);
      let bytes: Uint8Array | undefined;
      for await (const { index } of run) if (index === 2) bytes = await run.save();
      const resumed = await pipeline.resume(bytes!).result;
      bitEqual(await elementsOf(resumed.samples), await samplesOf(pipeline, given));
      bitEqual(await elementsOf((await run.result).samples), await samplesOf(pipeline, given));
    }
  });

  test('from onProgress', async () => {
    const files: Promise<Uint8Array>[] = [];
    const run = pipeline.start({ ...options, onProgress: ({ step }) => void (step < 4 && files.push(run.save())) });
    await run.result;
    for (const file of files) await goesOn(await file);
    expect(files).toHaveLength(3);
  });

  test('after the end: ERR_STATE', async () => {
    const ended = pipeline.start(options);
    await ended.result;
    sentence(await rejection(() => ended.save()), 'ERR_STATE', /ended/);
    const aborted = pipeline.start(options);
    aborted.abort();
    sentence(await rejection(() => aborted.save()), 'ERR_STATE', /ended/);
  });

  test('rejects where the run ends before it, in whatever way', async () => {
    const hung = pipelineOn('cpu', () => new Promise(() => {})).start(options);
    await hung.save(); // at its beginning
    const saves = [hung.save(), hung.save({ stop: true })];
    setTimeout(() => hung.abort(), 5);
    for (const save of saves) sentence(await rejection(() => save), 'ERR_ABORTED');

    const reason = new Error('out of memory');
    const failed = pipelineOn('cpu', () => Promise.reject(reason)).start(options);
    await failed.save();
    expect(await failed.save().catch((error: unknown) => error)).toBe(reason);

    const late = pipeline.start(options);
    const at: Promise<unknown>[] = [];
    for await (const { index } of late) if (index === 4) setImmediate(() => at.push(rejection(() => late.save())));
    await late.result;
    await new Promise(setImmediate);
    sentence((await at[0]) as ScoreSdeError, 'ERR_STATE');
  });

  test.each([5, 'stop', null])('options %p', async (given) => {
    const run = pipeline.start(options);
    sentence(await rejection(() => run.save(given as never)), 'ERR_CONFIG', /options/);
    sentence(
      await rejection(() => run.save({ stop: 'yes' } as never)),
      'ERR_CONFIG',
      /stop must be a boolean, got "yes"/,
    );
    await run.result;
  });

  test("a solver of the caller's own cannot be saved", async () => {
    const { solver } = laneOf(pipeline, options);
    const own = { ...solver, name: 'mine' };
    const run = pipeline.start({ solver: own, numInferenceSteps: 3, seed: 1 } as RunOptions);
    sentence(await rejection(() => run.save()), 'ERR_CONFIG', /no solver "mine"/);
    await run.result;
  });
});

test('a file on disk', async () => {
  const folder = await temporaryFolder();
  const digits = await ScoreSdeVePipeline.fromPretrained('digits', { device: 'cpu' });
  const options = { calls: 4, batchSize: 2, seed: 1, modelInputs: { class_labels: [3, 7] } };
  const file = join(folder, 'run.safetensors');
  writeFileSync(file, (await everyStage(digits, options))[2]!);
  bitEqual(
    await elementsOf((await digits.resume(readFileSync(file)).result).samples),
    await samplesOf(digits, options),
  );
  await digits.dispose();
});

test('a network that is called ahead of the event loop is saved before it ends', async () => {
  const digits = await ScoreSdeVePipeline.fromPretrained('digits', { device: 'cpu', intraOpThreads: 1 });
  const expected = await samplesOf(digits, { calls: 8, batchSize: 64, seed: 1 });
  let saved: Promise<Uint8Array> | undefined;
  const onProgress = ({ step }: { step: number }) => {
    if (step === 2) saved = run.save({ stop: true });
  };
  const run = digits.start({ calls: 8, batchSize: 64, seed: 1, onProgress });
  await rejection(() => run.result);
  const bytes = (await saved)!;
  expect(callsOf(bytes)).toBeLessThanOrEqual(6);
  bitEqual(await elementsOf((await digits.resume(bytes).result).samples), expected);
  await digits.dispose();
});
