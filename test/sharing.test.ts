import fc from 'fast-check';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Generator, ScoreSdeError, Tensor, type ErrorCode, type IpcHandle } from '../lib';
import { rowsOf } from '../lib/tensor/views';
import { run } from './support/child';
import { cudaDevices, isEmulated } from './support/devices';
import { bitEqual } from './support/golden';
import { failure, sentence } from './support/refusals';
import { until } from './support/until';

// What other libraries and processes hand over, right and wrong: typed errors, and each tensor given back once.

interface Described {
  version: number;
  flags: bigint;
  data: bigint;
  device: [type: number, id: number];
  dtype: [code: number, bits: number, lanes: number];
  ndim: number;
  shape: BigInt64Array;
  strides?: BigInt64Array;
  byteOffset: bigint;
}
/** An addon that makes DLPack tensors of any description, in builds for the emulator. */
interface Externals {
  make: (described: Described) => object;
  deleted: () => number;
  layoutOf: (tensor: object) => [dims: number[] | null, strides: number[] | null];
}
const file = join(process.env['SCORE_SDE_PREBUILD'] ?? '', 'externals.node');
const [device] = cudaDevices;
const externals = isEmulated ? (createRequire(__filename)(file) as Externals) : undefined;

const settled = () => new Promise((resolve) => setTimeout(resolve, 5));
const handle = Buffer.alloc(64, 1).toString('base64');

test('the JSON of an IPC handle: a typed error for whatever is none', () => {
  const sound = { type: 'float32', dims: [2, 3], device: 'cuda:0', handle };
  const anything = fc.anything({ withBigInt: true, withTypedArray: true });
  const wrong = fc.constantFrom(...Object.keys(sound)).chain((key) => anything.map((v) => ({ ...sound, [key]: v })));
  const bytes = fc.uint8Array({ minLength: 64, maxLength: 64 }).map((b) => Buffer.from(b).toString('base64'));
  const unknown = bytes.map((b) => ({ ...sound, handle: b }));
  fc.assert(
    fc.property(fc.oneof(anything, wrong, unknown), (json) => {
      expect(failure(() => Tensor.fromIpcHandle(json as IpcHandle))).toBeInstanceOf(ScoreSdeError);
    }),
    { numRuns: 2000 },
  );
});

(externals ? describe : describe.skip)('DLPack tensors of another library', () => {
  const { make, deleted } = externals ?? ({} as Externals);
  const owner = externals ? new Generator(1).randn([2, 3, 4], { device: device! }) : undefined;
  const sound = (): Described => ({
    version: 1,
    flags: 0n,
    data: owner!.cudaArrayInterface.data[0],
    device: [2, 0],
    dtype: [2, 32, 1],
    ndim: 3,
    shape: BigInt64Array.of(2n, 3n, 4n),
    strides: BigInt64Array.of(12n, 4n, 1n),
    byteOffset: 0n,
  });

  test('are used where they lie, and given back once', async () => {
    const before = deleted();
    const taken = Tensor.fromDLPack(make({ ...sound(), shape: BigInt64Array.of(1n, 3n, 4n), byteOffset: 48n }));
    expect([taken.dims, taken.type]).toEqual([[1, 3, 4], 'float32']);
    bitEqual(await taken.getData(), (await owner!.getData()).slice(12));
    new Generator(2).randn([1, 3, 4], { out: taken });
    bitEqual((await owner!.getData()).slice(12), await taken.getData());
    const part = rowsOf(taken as Tensor, 0, 0);
    for (const foreign of [taken, part])
      sentence(
        failure(() => foreign.toDLPack()),
        'ERR_STATE',
        /memory of another owner cannot be lent to a third/,
      );
    part.dispose();
    expect(deleted()).toBe(before);
    taken.dispose();
    taken.dispose();
    await until(() => deleted() > before);
    await settled();
    expect(deleted()).toBe(before + 1);
  });

  test('that are to be read alone are not written', async () => {
    const taken = Tensor.fromDLPack(make({ ...sound(), flags: 1n }));
    expect(taken.cudaArrayInterface.data[1]).toBe(true);
    const [before, given] = [(await owner!.getData()).slice(), deleted()];
    sentence(
      failure(() => new Generator(3).randn([2, 3, 4], { out: taken })),
      'ERR_CONFIG',
      /out lies in memory that its owner lends to be read alone/,
    );
    bitEqual(await taken.getData(), before);
    taken.dispose();
    await until(() => deleted() > given);
  });

  test.each<[string, Partial<Described>, ErrorCode, RegExp]>([
    ['of another version', { version: 2 }, 'ERR_DTYPE', /DLPack 1, got one of version 2/],
    ['on the CPU', { device: [1, 0] }, 'ERR_CONFIG', /device of DLPack's type 1/],
    ['on no device', { device: [2, -1] }, 'ERR_CONFIG', /no number/],
    ['on a device that is not there', { device: [2, 99] }, 'ERR_CUDA_UNAVAILABLE', /no device cuda:99/],
    ['of vectors', { dtype: [2, 32, 4] }, 'ERR_DTYPE', /vectors/],
    ['of half bytes', { dtype: [0, 4, 1] }, 'ERR_DTYPE', /code 0 and 4 bits, which no type has/],
    ['of complex numbers', { dtype: [5, 64, 1] }, 'ERR_DTYPE', /code 5 and 64 bits, which no type has/],
    ['of a negative size', { shape: BigInt64Array.of(2n, -3n, 4n) }, 'ERR_SHAPE', /negative/],
    ['of a negative rank', { ndim: -1 }, 'ERR_SHAPE', /no shape/],
    ['of a rank without sizes', { ndim: 2 ** 30 }, 'ERR_SHAPE', /no shape/],
    ['of no end', { shape: BigInt64Array.of(2n ** 62n, 2n ** 62n, 0n) }, 'ERR_SHAPE', /larger than any memory/],
    ['with gaps', { strides: BigInt64Array.of(24n, 4n, 1n) }, 'ERR_SHAPE', /row-major/],
    ['between two elements', { byteOffset: 2n }, 'ERR_CONFIG', /aligned/],
    ['at an address that is none', { data: 4096n }, 'ERR_CUDA', /not one of a device's memory/],
  ])('%s are refused, and stay with who made them', async (_, wrong, code, says) => {
    const before = deleted();
    const external = make({ ...sound(), ...wrong });
    sentence(
      failure(() => Tensor.fromDLPack(external)),
      code,
      says,
    );
    await settled();
    expect(deleted()).toBe(before);
  });

  test('of any description: a tensor of it, or a typed error', async () => {
    const dim = fc.oneof(fc.bigInt({ min: -2n, max: 5n }), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
    const dims = fc.array(dim, { minLength: 3, maxLength: 3 }).map((list) => BigInt64Array.from(list));
    const sometimes = <T>(wild: fc.Arbitrary<T>, sane: T) =>
      fc.oneof({ weight: 3, arbitrary: fc.constant(sane) }, { weight: 1, arbitrary: wild });
    const byte = fc.integer({ min: 0, max: 255 });
    const described = fc.record<Described>({
      version: sometimes(fc.nat(), 1),
      flags: fc.bigInt({ min: 0n, max: 3n }),
      data: sometimes(fc.constantFrom(0n, 1n, 2n ** 64n - 4n), sound().data),
      device: sometimes(fc.tuple(byte, fc.integer({ min: -2, max: 300 })), [2, 0] as [number, number]),
      dtype: sometimes(fc.tuple(byte, byte, byte), [2, 32, 1] as [number, number, number]),
      ndim: sometimes(fc.integer({ min: -(2 ** 31), max: 3 }), 3),
      shape: sometimes(dims, sound().shape),
      strides: fc.oneof(fc.constant(undefined as never), dims),
      byteOffset: sometimes(
        fc.oneof(fc.bigInt({ min: 1n, max: 96n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
        0n,
      ),
    });
    await fc.assert(
      fc.asyncProperty(described, async (what) => {
        const before = deleted();
        let taken: Tensor;
        try {
          taken = Tensor.fromDLPack(make(what));
        } catch (error) {
          expect(error).toBeInstanceOf(ScoreSdeError);
          return;
        }
        expect(taken.dims).toEqual([...what.shape].slice(0, what.ndim).map(Number));
        taken.dispose();
        await until(() => deleted() > before);
        expect(deleted()).toBe(before + 1);
      }),
      { numRuns: 500 },
    );
  });
});

(externals ? describe : describe.skip)('DLPack tensors for another library', () => {
  test.each([
    [
      [2, 3, 4],
      [12, 4, 1],
    ],
    [[5], [1]],
    [
      [2, 0, 3],
      [0, 3, 1],
    ],
    [[], null],
  ])('of dims %p have the strides %p', (dims, strides) => {
    const external = Tensor.zeros(dims, { device: device! }).toDLPack();
    expect(externals!.layoutOf(external)).toEqual([dims.length === 0 ? null : dims, strides]);
    Tensor.fromDLPack(external).dispose();
  });

  // The legacy default stream orders itself with the per-thread streams, which are others on each thread.
  test.each([
    ['none', 'undefined', '1'],
    ['0n', '0n', '1'],
    ['the legacy default stream', '1n', '1'],
    ['the per-thread default stream', '2n', '1'],
    ['one of its own', 'streamOf()', 'own'],
  ])('whose stream is %s: either side, and the next tensor, comes after the other', async (_, stream, ordered) => {
    // The emulator tells what waits for what, at once and not when that is over.
    const said = await run(`
      const { Tensor, memoryUsage, streamOf } = sde;
      const { existsSync, readFileSync, rmSync } = require('node:fs');
      const log = require('node:path').join(require('node:os').tmpdir(), 'score-sde-waits-' + process.pid);
      const own = new RegExp('\\\\b' + streamOf() + '\\\\b', 'g');
      const waitsOf = async (work) => {
        process.env.EMULATED_WAITS = log;
        await work();
        delete process.env.EMULATED_WAITS;
        const waits = existsSync(log) ? readFileSync(log, 'utf8').replaceAll(own, 'own').trim().split('\\n') : [];
        rmSync(log, { force: true });
        return waits;
      };
      const tensor = Tensor.zeros([1000], { device: 'cuda' });
      await tensor.getData();
      const stream = ${stream};
      let external, taken;
      const lending = await waitsOf(() => (external = tensor.toDLPack({ stream })));
      const taking = await waitsOf(() => (taken = Tensor.fromDLPack(external, { stream })));
      tensor.dispose();
      const { used } = memoryUsage();
      const ending = await waitsOf(async () => {
        taken.dispose();
        while (memoryUsage().used === used) await new Promise(setImmediate);
        Tensor.empty([1000], { device: 'cuda' });
      });
      // A callback tells the end of the use here; then the deleter is called, and the memory taken again.
      console.log(JSON.stringify([lending, taking, ending.slice(1)]));`);
    expect(JSON.parse(said)).toEqual([[`${ordered} own`], [`own ${ordered}`], [`own ${ordered}`]]);
  });
});

(externals ? describe : describe.skip)('where a worker thread ends', () => {
  const inWorker = (work: string) =>
    run(`
      const { deleted } = require(${JSON.stringify(file)});
      process.env.EMULATED_LATE = '300'; // the device is at work that long
      const worker = inWorker(\`async () => {
        const { make } = require(${JSON.stringify(file)});
        const owner = new sde.Generator(1).randn([24], { device: 'cuda' });
        const [data] = owner.cudaArrayInterface.data;
        const taken = sde.Tensor.fromDLPack(make({
          version: 1, flags: 0n, data, device: [2, 0], dtype: [2, 32, 1], ndim: 1, shape: BigInt64Array.of(24n), byteOffset: 0n,
        }));
        const lent = sde.Tensor.fromPointer(data, [24], { owner, release: () => parentPort.postMessage('told') });
        await owner.getData();
        ${work}
      }\`);
      const said = [];
      worker.on('message', (message) => said.push(message)).on('error', (error) => said.push(error.message));
      const code = await new Promise((resolve) => worker.on('exit', resolve));
      console.log(deleted(), code, said.join());`);

  test.each([
    ['soon', 'taken.dispose(); lent.dispose();', '1 0 told'],
    ['at once', 'taken.dispose(); lent.dispose(); process.exit(3);', '1 3'],
    ['by an error', "taken.dispose(); lent.dispose(); throw new Error('its own');", '1 1 its own'],
    ['with a tensor that is not disposed', 'process.exit(4);', '1 4'],
  ])('%s, the makers of tensors are told', async (_, work, said) => {
    expect(await inWorker(work)).toBe(said);
  });
});

// A graph may use it as often as it is launched. The emulator says of every stream that it is captured.
(externals ? test : test.skip)(
  "others' memory that is disposed in a capture is kept until its thread ends",
  async () => {
    const said = await run(`
    const { deleted } = require(${JSON.stringify(file)});
    const worker = inWorker(\`async () => {
      const { make } = require(${JSON.stringify(file)});
      const owner = new sde.Generator(1).randn([24], { device: 'cuda' });
      const [data] = owner.cudaArrayInterface.data;
      const taken = sde.Tensor.fromDLPack(make({
        version: 1, flags: 0n, data, device: [2, 0], dtype: [2, 32, 1], ndim: 1, shape: BigInt64Array.of(24n), byteOffset: 0n,
      }));
      const out = sde.Tensor.zeros([24], { device: 'cuda' });
      await owner.getData();
      const isSaid = () => new Promise((resolve) => parentPort.once('message', resolve));
      parentPort.postMessage('captures');
      await isSaid();
      taken.dispose();
      const calls = [() => owner.getData(), () => new sde.Generator(1).randnAsync([24], { out }), () => sde.Tensor.zeros([3]).to('cuda')];
      const ends = await Promise.allSettled(calls.map(async (call) => call()));
      parentPort.postMessage(ends.map(({ reason }) => reason?.code).join());
      await isSaid();
      parentPort.postMessage((await out.getData()).every((value) => value === 0));
    }\`);
    const hears = () => new Promise((resolve) => worker.once('message', resolve));
    await hears();
    process.env.EMULATED_CAPTURE = '1';
    worker.postMessage('');
    const refused = await hears();
    delete process.env.EMULATED_CAPTURE;
    const before = deleted();
    worker.postMessage('');
    const isUntouched = await hears();
    await new Promise((resolve) => worker.on('exit', resolve));
    console.log(refused, isUntouched, before, deleted());`);
    expect(said).toBe('ERR_STATE,ERR_STATE,ERR_STATE true 0 1');
  },
);

// The emulator tells which stream waits for an event of which other one, and does all work at once.
(externals ? test : test.skip)(
  "a large corrector's noise is measured on a stream of its own while there is work",
  async () => {
    const said = await run(`
    const { Generator, ScoreSdeVeScheduler, streamOf } = sde;
    const { existsSync, readFileSync, rmSync } = require('node:fs');
    const log = require('node:path').join(require('node:os').tmpdir(), 'score-sde-ahead-' + process.pid);
    const own = String(streamOf());
    const scheduler = new ScoreSdeVeScheduler();
    const x = new Generator(1).randn([1, 1, 300, 300], { device: 'cuda' });
    const results = [];
    const waitsOf = (state) => {
      process.env.EMULATED_WAITS = log;
      Object.assign(process.env, state);
      try {
        results.push(scheduler.stepCorrect(x, x, { generator: new Generator(2) }).prevSample);
      } catch {}
      delete process.env.EMULATED_WAITS;
      delete process.env.EMULATED_IDLE;
      const lines = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\\n') : [];
      rmSync(log, { force: true });
      return lines.map((line) => line.split(' ').map((stream) => ({ [own]: 'work', 0: 'none' })[stream] ?? 'ahead').join(' < '));
    };
    // The first call's last launch fails, of the noise, the score and the update.
    const waits = [{ EMULATED_FAULT: 'cudaLaunchKernelEx 3 1' }, {}, {}, { EMULATED_IDLE: '1' }].map(waitsOf);
    const bits = await Promise.all(results.map(async (result) => Buffer.from((await result.getData()).buffer).toString('hex')));
    console.log(JSON.stringify([waits, new Set(bits).size]));`);
    // Of two places for the sums, the one that was read last is written once that is done.
    const first = ['ahead < none', 'work < ahead'];
    expect(JSON.parse(said)).toEqual([[first, first, ['ahead < work', 'work < ahead'], []], 1]);
  },
);
