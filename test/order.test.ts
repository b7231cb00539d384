import { Generator, getNumThreads, ScoreSdeVeScheduler, setNumThreads, Tensor } from '../lib';
import { devices, elementsOf, isEmulated } from './support/devices';
import { scheduler } from './support/edge';
import { bitEqual } from './support/golden';
import { failure, position, rejection, sentence } from './support/refusals';
import { engines } from './support/step-calls';

const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;
const drawn = (seed: number, dims: readonly number[], device = 'cpu') => new Generator(seed).randn(dims, { device });
const equal = async (actual: Tensor, expected: Tensor) =>
  bitEqual(await elementsOf(actual), await elementsOf(expected));
const torch = (seed: number) => new Generator(seed, { engine: 'torch' });
const turn = () => new Promise(setImmediate);

const large = [4, 3, 64, 64];
const shapes = [{ dims: [1, 1, 1, 1] }, { dims: [2, 3, 5, 7] }, { dims: large }];

/** Some milliseconds of work which writes the tensor. */
const longWrite = (out: Tensor) => torch(1).randnAsync(out.dims, { out });
const roomy = () => Tensor.empty([1 << 20]);

describe.each(devices)(
  'on %s, asynchronous calls on the same memory run in the order in which they were made',
  (device) => {
    const rows = shapes.flatMap(({ dims }) => engines.map((engine) => ({ dims, engine })));

    test.each(rows)('$dims in place, $engine: a chain that nothing awaits', async ({ dims, engine }) => {
      const times = [1, 0.8, 0.6, 0.4, 0.2, 0.05];
      const start = (place: string) => ({
        x: drawn(1, dims, place),
        score: drawn(2, dims, place),
        generator: new Generator(3, { engine }),
      });
      const s = scheduler();

      const expected = start('cpu');
      for (const t of times) {
        const { x, score, generator } = expected;
        s.stepCorrect(score, x, { generator, out: x });
        s.stepPred(score, t, x, { generator, out: x, outMean: score });
        s.addNoise(x, undefined, -1, { generator, out: x });
      }
      const actual = start(device);
      const calls = times.flatMap((t) => {
        const { x, score, generator } = actual;
        return [
          s.stepCorrectAsync(score, x, { generator, out: x }),
          s.stepPredAsync(score, t, x, { generator, out: x, outMean: score }),
          s.addNoiseAsync(x, undefined, -1, { generator, out: x }),
        ] as Promise<unknown>[];
      });
      // What is read now is what they leave.
      const last = actual.x.getData();
      await Promise.all(calls);
      bitEqual(await last, floats(expected.x));
      await equal(actual.x, expected.x);
      await equal(actual.score, expected.score);
      expect(position(actual.generator)).toBe(position(expected.generator));
    });

    test.each(rows)('$dims from tensor to tensor, $engine', async ({ dims, engine }) => {
      const tensors = (place: string) => Array.from({ length: 8 }, (_, i) => drawn(i, dims, place));
      const s = scheduler();
      const chain = (list: Tensor[], step: (from: Tensor, out: Tensor) => unknown) =>
        list.slice(1).map((out, i) => step(list[i]!, out));

      const expected = tensors('cpu');
      const one = new Generator(9, { engine });
      chain(expected, (from, out) => s.stepPred(from, 0.7, from, { generator: one, out }));
      const actual = tensors(device);
      const other = new Generator(9, { engine });
      await Promise.all(chain(actual, (from, out) => s.stepPredAsync(from, 0.7, from, { generator: other, out })));
      for (const [i, tensor] of actual.entries()) await equal(tensor, expected[i]!);
    });
  },
);

describe('asynchronous calls on the same memory run in the order in which they were made', () => {
  test('also where they see it through different views', async () => {
    const block = new Float32Array(3 * 48).map((_, i) => i / 16);
    const dims = [1, 3, 4, 4];
    const at = (data: Float32Array, i: number) => ({ data: data.subarray(48 * i, 48 * i + 48), dims });
    const s = scheduler();
    const moves = [
      [0, 1],
      [1, 2],
      [2, 0],
      [0, 1],
    ];
    const expected = block.slice();
    for (const [from, to] of moves)
      s.stepPred(at(expected, from!), 0.5, at(expected, from!), { noise: at(expected, from!), out: at(expected, to!) });
    await Promise.all(
      moves.map(([from, to]) =>
        s.stepPredAsync(at(block, from!), 0.5, at(block, from!), { noise: at(block, from!), out: at(block, to!) }),
      ),
    );
    bitEqual(block, expected);
  });

  test('a reader waits for the writer before it, and a writer for the readers', async () => {
    const [x, early, late] = [roomy(), roomy(), roomy()];
    const dims = [1, 1, 1024, 1024];
    const view = { data: x.data, dims };
    const done: string[] = [];
    const s = scheduler();
    const zero = { data: new Float32Array(1 << 20), dims };
    const copyTo = (out: Tensor) => s.addNoiseAsync(view, zero, 0, { out: { data: out.data, dims } });
    const calls = [
      longWrite(x).then(() => done.push('write')),
      copyTo(early).then(() => done.push('read')),
      new Generator(5).randnAsync(x.dims, { out: x }).then(() => done.push('write again')),
      copyTo(late).then(() => done.push('read again')),
    ];
    await Promise.all(calls);
    expect(done).toEqual(['write', 'read', 'write again', 'read again']);
    bitEqual(early.data, torch(1).randn(x.dims).data as Float32Array);
    bitEqual(late.data, drawn(5, x.dims).data as Float32Array);
  });

  test('with no turn of the event loop between them', async () => {
    const [x, y, z] = [roomy(), roomy(), roomy()];
    const s = scheduler();
    const zero = { data: new Float32Array(1 << 20), dims: [1, 1, 1024, 1024] };
    const wide = ({ data }: Tensor) => ({ data: data as Float32Array, dims: zero.dims });
    const calls = [
      longWrite(x),
      s.addNoiseAsync(wide(x), zero, 0, { out: wide(y) }),
      s.addNoiseAsync(wide(y), zero, 0, { out: wide(z) }),
      new Generator(5).randnAsync(x.dims, { out: x }),
      s.addNoiseAsync(wide(x), zero, 0, { out: wide(y) }),
    ];
    const last = { data: drawn(5, x.dims).data as Float32Array, at: x.size - 1 };
    const lock = new Int32Array(new SharedArrayBuffer(4));
    for (let tries = 0; (y.data as Float32Array)[last.at] !== last.data[last.at] && tries < 60_000; tries++)
      Atomics.wait(lock, 0, 0, 1);
    bitEqual(floats(z), floats(torch(1).randn(x.dims)));
    await Promise.all(calls);
    bitEqual(floats(y), last.data);
  });

  test('getData() and to() wait for what is being written', async () => {
    for (const look of [(x: Tensor) => x.getData(), async (x: Tensor) => (await x.to('cpu')).data]) {
      const x = roomy();
      const written = longWrite(x);
      const data = (await look(x)) as Float32Array;
      bitEqual(data, torch(1).randn(x.dims).data as Float32Array);
      await written;
    }
  });

  test('a call keeps the schedule, and the options, that it was made with', async () => {
    const [x, score] = [drawn(1, [2, 3, 4, 4]), drawn(2, [2, 3, 4, 4])];
    const held = roomy();
    const busy = longWrite(held);
    const s = scheduler();
    const [timestep, noise] = [[0.5, 0.7], drawn(4, [2, 3, 4, 4])];
    // It stands in line behind the long one, which writes what lies beside its sample.
    const beside = { data: (held.data as Float32Array).subarray(0, 96), dims: [2, 3, 4, 4] };
    const options = { noise: noise as Tensor | undefined, out: beside };
    const call = s.stepPredAsync(score, timestep, x, options);
    s.setTimesteps(50);
    s.setSigmas(50, { sigmaMax: 5 });
    timestep[0] = 0.1;
    options.noise = undefined;
    options.out = { data: new Float32Array(96), dims: [2, 3, 4, 4] };
    await Promise.all([busy, call]);
    const expected = scheduler().stepPred(score, [0.5, 0.7], x, { noise }).prevSample;
    bitEqual(beside.data, floats(expected));
  });
});

describe('asynchronous calls on different memory run side by side', () => {
  /** Which of two calls ends first: a long one, or a short one that was made after it. */
  async function firstOf(long: Promise<unknown>, short: Promise<unknown>): Promise<string[]> {
    const done: string[] = [];
    await Promise.all([long.then(() => done.push('long')), short.then(() => done.push('short'))]);
    return done;
  }
  const vast = () => Tensor.empty([8, 1 << 20]);
  /** As long as a busy machine may keep a thread from its work, and longer. */
  const long = (call: () => Promise<unknown>) => Array.from({ length: 8 }, call).at(-1)!;

  test('a short call does not wait for a long one', async () => {
    const [a, b] = [vast(), Tensor.empty([4])];
    expect(
      await firstOf(
        long(() => longWrite(a)),
        longWrite(b),
      ),
    ).toEqual(['short', 'long']);
    bitEqual(floats(b), floats(torch(1).randn([4])));
  });

  test('nor for many that follow one another, even on one thread', async () => {
    const threads = getNumThreads();
    setNumThreads(1);
    try {
      const [a, b] = [vast(), Tensor.empty([4])];
      const many = Array.from({ length: 100 }, () => longWrite(a)).at(-1)!;
      expect(await firstOf(many, longWrite(b))).toEqual(['short', 'long']);
    } finally {
      setNumThreads(threads);
    }
  });

  test('but does where it needs the same memory', async () => {
    const a = vast();
    const part = new Tensor('float32', (a.data as Float32Array).subarray(0, 4), [4]);
    expect(
      await firstOf(
        long(() => longWrite(a)),
        longWrite(part),
      ),
    ).toEqual(['long', 'short']);
  });

  test('two that only read the same memory do not wait for each other', async () => {
    const x = vast();
    x.data.fill(1);
    const dims = [8, 1, 1024, 1024];
    const generator = torch(1); // whose draws follow one another
    const reads = long(() => scheduler().addNoiseAsync({ data: x.data, dims }, undefined, 0, { generator }));
    const part = { data: (x.data as Float32Array).subarray(0, 4), dims: [1, 1, 2, 2] };
    const short = scheduler().addNoiseAsync(part, undefined, 0, { generator: torch(1) });
    expect(await firstOf(reads, short)).toEqual(['short', 'long']);
  });

  test('two generators of the torch engine do not wait for each other, one waits for itself', async () => {
    const [one, other] = [torch(1), torch(2)];
    expect(
      await firstOf(
        long(() => one.randnAsync([8 << 20])),
        other.randnAsync([4]),
      ),
    ).toEqual(['short', 'long']);
    expect(
      await firstOf(
        long(() => one.randnAsync([8 << 20])),
        one.randnAsync([4]),
      ),
    ).toEqual(['long', 'short']);
  });
});

describe.each(devices)('on %s, a synchronous call on memory that is in use', (device) => {
  const dims = device !== 'cpu' && isEmulated ? [1, 1, 64, 64] : [1, 1, 1024, 1024];
  interface Use {
    /** Starts work on x. */
    start: (x: Tensor, other: Tensor) => Promise<unknown>;
    writes: boolean;
  }
  const uses: Record<string, Use> = {
    'randnAsync into it': { start: (x) => torch(1).randnAsync(dims, { out: x }), writes: true },
    'stepPredAsync onto it': {
      start: (x, y) => scheduler().stepPredAsync(y, 0.5, y, { generator: torch(1), out: x }),
      writes: true,
    },
    "stepPredAsync's mean onto it": {
      start: (x, y) => scheduler().stepPredAsync(y, 0.5, y, { generator: torch(1), outMean: x }),
      writes: true,
    },
    'stepPredAsync of it': {
      start: (x, y) => scheduler().stepPredAsync(y, 0.5, x, { generator: torch(1) }),
      writes: false,
    },
    'stepCorrectAsync onto it': {
      start: (x, y) => scheduler().stepCorrectAsync(y, y, { generator: torch(1), out: x }),
      writes: true,
    },
    'stepCorrectAsync with its score': {
      start: (x, y) => scheduler().stepCorrectAsync(x, y, { generator: torch(1) }),
      writes: false,
    },
    'addNoiseAsync onto it': {
      start: (x, y) => scheduler().addNoiseAsync(y, undefined, 3, { generator: torch(1), out: x }),
      writes: true,
    },
    'addNoiseAsync of it as noise': { start: (x, y) => scheduler().addNoiseAsync(y, x, 3), writes: false },
  };
  interface Try {
    method: string;
    call: (x: Tensor, other: Tensor, generator: Generator) => unknown;
    writes: boolean;
  }
  const tries: Record<string, Try> = {
    'randn into it': { method: 'randn', call: (x, _, g) => g.randn(dims, { out: x }), writes: true },
    'stepPred of it': {
      method: 'stepPred',
      call: (x, y, generator) => scheduler().stepPred(y, 0.5, x, { generator }),
      writes: false,
    },
    'stepPred onto it': {
      method: 'stepPred',
      call: (x, y, generator) => scheduler().stepPred(y, 0.5, y, { generator, out: x }),
      writes: true,
    },
    'stepCorrect with its score': {
      method: 'stepCorrect',
      call: (x, y, generator) => scheduler().stepCorrect(x, y, { generator }),
      writes: false,
    },
    'addNoise onto it': {
      method: 'addNoise',
      call: (x, y, generator) => scheduler().addNoise(y, undefined, 3, { generator, out: x }),
      writes: true,
    },
    'clone of it': { method: 'clone', call: (x) => x.clone(), writes: false },
  };
  // On a device only draws on the host are waited for: the stream orders the rest.
  const ordered = (use: string) => device !== 'cpu' && use === 'addNoiseAsync of it as noise';
  const rows = Object.entries(uses).flatMap(([use, { start, writes }]) =>
    Object.entries(tries).map(([attempt, { method, call, writes: alsoWrites }]) => ({
      use,
      start,
      attempt,
      method,
      call,
      verdict: (writes || alsoWrites) && !ordered(use) ? 'ERR_BUSY' : 'allowed',
    })),
  );

  const inputs = () => [drawn(1, dims, device), drawn(2, dims, device)] as const;
  const tensors = (result: unknown) => {
    const { prevSample, prevSampleMean } = result as { prevSample?: Tensor; prevSampleMean?: Tensor };
    return [prevSample ?? (result as Tensor), prevSampleMean].flatMap((t) => (t ? [t] : []));
  };

  test.each(rows)('$use, then $attempt: $verdict', async ({ start, method, call, verdict }) => {
    const expected = await start(...inputs());
    const [x, y] = inputs();
    const generators = engines.map((engine) => new Generator(7, { engine }));
    const before = generators.map(position);
    const working = start(x, y);
    if (verdict === 'ERR_BUSY') {
      for (const generator of generators)
        sentence(
          failure(() => call(x, y, generator)),
          'ERR_BUSY',
          new RegExp(`^${method}\\b`),
          /await/,
        );
      expect(generators.map(position)).toEqual(before);
    } else call(x, y, generators[0]!);
    const actual = await working;
    for (const [i, tensor] of tensors(actual).entries()) await equal(tensor, tensors(expected)[i]!);
    // Once it has ended, the memory is free.
    expect(() => call(x, y, generators[0]!)).not.toThrow();
  });
});

describe.each(devices)('on %s, a generator in use', (device) => {
  test.each(engines)('%s: draws in flight come in order, and equal the synchronous ones', async (engine) => {
    // Sizes on both sides of torch's 16, with odd ones, which leave half a pair.
    const sizes = [5, 40, 1, 100_000, 15, 16, 17, 3, 70_000, 2];
    const [a, b] = [new Generator(3, { engine }), new Generator(3, { engine })];
    const expected = sizes.map((n) => a.randn([n]));
    const actual = await Promise.all(sizes.map((n) => b.randnAsync([n], { device })));
    for (const [i, tensor] of actual.entries()) await equal(tensor, expected[i]!);
    expect(position(b)).toBe(position(a));
  });

  test('two of the torch engine at once, each its own stream', async () => {
    const sizes = [50_000, 7, 30_000, 9];
    const generators = [torch(1), torch(2)];
    const actual = await Promise.all(sizes.flatMap((n) => generators.map((g) => g.randnAsync([n], { device }))));
    const [one, two] = [torch(1), torch(2)];
    const expected = sizes.flatMap((n) => [one.randn([n]), two.randn([n])]);
    for (const [i, tensor] of actual.entries()) await equal(tensor, expected[i]!);
  });

  test('the same one for both samples draws for one after the other', async () => {
    const dims = [2, 3, 64, 64];
    const [x, score] = [drawn(1, dims), drawn(2, dims)];
    const there = [drawn(1, dims, device), drawn(2, dims, device)] as const;
    for (const engine of engines) {
      const [g, h, k] = [1, 1, 1].map((seed) => new Generator(seed, { engine }));
      const noise = new Tensor('float32', new Float32Array(2 * 12288), [2, 3, 64, 64]);
      for (const row of [0, 1]) noise.data.set(h!.randn([12288]).data as Float32Array, row * 12288);
      const expected = scheduler().stepPred(score, 0.5, x, { noise }).prevSample;
      await equal(scheduler().stepPred(there[1], 0.5, there[0], { generator: [g!, g!] }).prevSample, expected);
      const { prevSample } = await scheduler().stepPredAsync(there[1], 0.5, there[0], { generator: [k!, k!] });
      await equal(prevSample, expected);
    }
  });

  const looks: [string, (g: Generator) => unknown][] = [
    ['getState', (g) => g.getState()],
    ['setState', (g) => g.setState(torch(5).getState())],
    ['manualSeed', (g) => g.manualSeed(5)],
    ['clone', (g) => g.clone()],
    ['randn', (g) => g.randn([4])],
  ];
  test.each(looks)('torch: %s while it draws is ERR_BUSY, and does not disturb it', async (_, look) => {
    const generator = torch(3);
    const drawing = generator.randnAsync([1 << 20], { device });
    const { code, message } = failure(() => look(generator));
    expect([code, message]).toEqual(['ERR_BUSY', expect.stringMatching(/await/)]);
    // It must not send anyone to a twin that does not exist.
    for (const [twin] of message.matchAll(/\w+Async/g)) expect(generator).toHaveProperty(twin);
    await equal(await drawing, torch(3).randn([1 << 20]));
    expect(() => look(generator)).not.toThrow();
  });

  test('philox: its draws are taken when the call is made, so that it is free at once', async () => {
    const [generator, expected] = [new Generator(3), new Generator(3)];
    const drawing = generator.randnAsync([1 << 20], { device });
    const first = expected.randn([1 << 20]);
    expect(generator.getState()).toEqual(expected.getState());
    bitEqual(floats(generator.randn([5])), floats(expected.randn([5])));
    generator.manualSeed(8);
    await equal(await drawing, first);
  });

  test('a step that draws from a torch generator keeps it busy, and a list keeps all of them', async () => {
    const [x, score] = [drawn(1, large, device), drawn(2, large, device)];
    const list = [1, 2, 3, 4].map(torch);
    const step = scheduler().stepPredAsync(score, 0.5, x, { generator: list });
    for (const generator of list)
      sentence(
        failure(() => generator.randn([4])),
        'ERR_BUSY',
      );
    await step;
    for (const generator of list) expect(() => generator.randn([4])).not.toThrow();
  });
});

describe.each(devices)('on %s, disposal while a call is in flight', (device) => {
  const dims = device !== 'cpu' && isEmulated ? [1, 1, 64, 64] : [1, 1, 1024, 1024];
  type Roles = Record<'score' | 'sample' | 'out' | 'mean' | 'noise', Tensor>;
  const roles = (): Roles => ({
    score: drawn(1, dims, device),
    sample: drawn(2, dims, device),
    noise: drawn(3, dims, device),
    out: Tensor.zeros(dims, { device }),
    mean: Tensor.zeros(dims, { device }),
  });
  const step = ({ score, sample, noise, out, mean }: Roles) =>
    scheduler().stepPredAsync(score, 0.5, sample, { noise, out, outMean: mean });

  test.each(['score', 'sample', 'noise', 'out', 'mean'] as const)('of %s waits for its end', async (role) => {
    const expected = await step(roles());
    const tensors = roles();
    const data = device === 'cpu' ? tensors[role].data : undefined;
    const working = step(tensors);
    tensors[role].dispose();
    tensors[role].dispose();
    expect(tensors[role].disposed).toBe(true);
    expect(data?.length ?? 1 << 20).toBe(1 << 20);
    const { prevSample, prevSampleMean } = await working;
    if (role !== 'out') await equal(prevSample, expected.prevSample);
    if (role !== 'mean') await equal(prevSampleMean, expected.prevSampleMean);
    await turn();
    expect(data?.length ?? 0).toBe(0);
  });

  test('of everything, with a line of calls behind it: all of them end', async () => {
    const tensors = roles();
    const calls = Array.from({ length: 6 }, () => step(tensors));
    Object.values(tensors).forEach((tensor) => tensor.dispose());
    const error = await rejection(() => step(tensors));
    sentence(error, 'ERR_DISPOSED', /\bsample\b/);
    for (const { prevSample, prevSampleMean } of await Promise.all(calls))
      expect([prevSample.disposed, prevSampleMean.disposed]).toEqual([true, true]);
  });

  test('at the end of a scope', async () => {
    let working: Promise<Tensor>;
    {
      using x = drawn(1, dims, device);
      working = scheduler().addNoiseAsync(x, undefined, 3, { generator: torch(1) });
    }
    const expected = scheduler().addNoise(drawn(1, dims), undefined, 3, { generator: torch(1) });
    await equal(await working, expected);
  });

  if (device !== 'cpu') return;
  test('getData() and to() of what was disposed meanwhile reject', async () => {
    const x = roomy();
    const written = longWrite(x);
    const looks = [rejection(() => x.getData()), rejection(() => x.to('cpu'))];
    x.dispose();
    for (const error of await Promise.all(looks)) sentence(error, 'ERR_DISPOSED');
    expect((await written).disposed).toBe(true);
  });

  test('of a view leaves the memory to the call, which holds it', async () => {
    let data: Float32Array | undefined = new Float32Array(1 << 20);
    const view = new Tensor('float32', data, dims);
    const working = torch(1).randnAsync(dims, { out: view });
    view.dispose();
    await working;
    bitEqual(data, floats(torch(1).randn(dims)));
    data = undefined;
  });
});

describe.each(devices)('on %s, an asynchronous call that fails', (device) => {
  const dims = [2, 3, 64, 64];
  const s = scheduler();

  test('its arguments rejected, leaves no memory and no generator in use', async () => {
    const [x, score, out] = [drawn(1, dims, device), drawn(2, dims, device), Tensor.zeros(dims, { device })];
    const generator = torch(1);
    const bad: [string, () => Promise<unknown>][] = [
      ['ERR_RANGE', () => s.stepPredAsync(score, NaN, x, { generator, out })],
      ['ERR_SHAPE', () => s.stepPredAsync(score, 0.5, x, { generator, out, outMean: Tensor.zeros([1], { device }) })],
      ['ERR_CONFIG', () => s.stepCorrectAsync(score, x, { generator, out, stepSize: 'none' as never })],
      ['ERR_ALIAS', () => s.stepPredAsync(score, 0.5, x, { generator, out, outMean: out })],
      ['ERR_RANGE', () => s.addNoiseAsync(x, undefined, 10, { generator, out })],
      ['ERR_SHAPE', () => generator.randnAsync([5], { out })],
    ];
    for (const [code, call] of bad) {
      expect((await rejection(call)).code).toBe(code);
      expect(() => s.stepPred(score, 0.5, x, { noise: x, out })).not.toThrow();
      expect(() => s.addNoise(out, x, 0, { out: x })).not.toThrow();
      expect(position(generator)).toBe(position(torch(1)));
    }
    // Nor while the rejection is still on its way.
    const rejected = bad.map(([, call]) => rejection(call));
    expect(() => s.stepPred(score, 0.5, x, { generator, out })).not.toThrow();
    await Promise.all(rejected);
  });
});

test('an asynchronous call returns before its work is done', async () => {
  const dims = [8, 1, 1024, 1024];
  const [x, score, out] = [drawn(1, dims), drawn(2, dims), Tensor.empty(dims)];
  const s = scheduler();
  const calls: (() => Promise<unknown>)[] = [
    () => torch(1).randnAsync(dims, { out }),
    () => s.stepPredAsync(score, 0.5, x, { generator: torch(1), out, returnMean: false }),
    () => s.stepCorrectAsync(score, x, { generator: torch(1), out }),
    () => s.addNoiseAsync(x, undefined, 3, { generator: torch(1), out }),
  ];
  for (const call of calls) {
    // A busy machine may take this thread away for as long as the work takes, but not each time.
    let early = false;
    for (let attempt = 0; attempt < 20 && !early; attempt++) {
      out.data.fill(NaN);
      const working = call();
      // One stream is drawn from its beginning to its end.
      early = Number.isNaN(out.data.at(-1));
      await working;
      expect(out.data.at(-1)).not.toBeNaN();
    }
    expect(early).toBe(true);
  }
});

describe.each(devices)('on %s, a thousand calls in flight', (device) => {
  const count = 1000;
  const dims = [1, 2, 3, 3];

  test('on memory of their own', async () => {
    const s = scheduler();
    const calls = Array.from({ length: count }, (_, i) =>
      s.stepPredAsync(drawn(i, dims, device), 0.5, drawn(i + 1, dims, device), { generator: new Generator(i) }),
    );
    const results = await Promise.all(calls);
    for (const [i, { prevSample, prevSampleMean }] of results.entries()) {
      const expected = s.stepPred(drawn(i, dims), 0.5, drawn(i + 1, dims), { generator: new Generator(i) });
      await equal(prevSample, expected.prevSample);
      await equal(prevSampleMean, expected.prevSampleMean);
    }
  });

  test.each(engines)('on the same memory, from one generator: %s', async (engine) => {
    const s = new ScoreSdeVeScheduler();
    const start = (place: string) => ({ x: drawn(1, dims, place), generator: new Generator(2, { engine }) });
    const [a, b] = [start('cpu'), start(device)];
    const zero = Tensor.zeros(dims, { device });
    // Noise levels that grow: the last calls do not drown what the first ones wrote.
    for (let i = 0; i < count; i++) s.addNoise(a.x, undefined, i, { generator: a.generator, out: a.x });
    const calls = Array.from({ length: count }, (_, i) =>
      s.addNoiseAsync(b.x, undefined, i, { generator: b.generator, out: b.x }),
    );
    // On a device calls that draw there are enqueued, and keep nothing waiting.
    if (device === 'cpu' || engine === 'torch') expect(failure(() => s.stepPred(zero, 0.5, b.x)).code).toBe('ERR_BUSY');
    await Promise.all(calls);
    await equal(b.x, a.x);
    expect(position(b.generator)).toBe(position(a.generator));
    expect(() => s.stepPred(zero, 0.5, b.x)).not.toThrow();
  });

  if (device !== 'cpu') return;
  test('do not mind another number of threads', async () => {
    const before = getNumThreads();
    const s = scheduler();
    const args = (i: number) => [drawn(i, large), drawn(i + 1, large), { generator: new Generator(i) }] as const;
    const calls = Array.from({ length: 16 }, (_, i) => {
      setNumThreads(1 + (i % 3));
      return s.stepCorrectAsync(...args(i));
    });
    const results = await Promise.all(calls);
    setNumThreads(before);
    results.forEach(({ prevSample }, i) => bitEqual(floats(prevSample), floats(s.stepCorrect(...args(i)).prevSample)));
  });
});
