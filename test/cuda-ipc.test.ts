// Memory of a device in two processes at once.
import { emptyCache, Generator, ScoreSdeVeScheduler, Tensor, type IpcHandle } from '../lib';
import { outputs, start } from './support/child';
import { cudaDevices } from './support/devices';
import { bitEqual } from './support/golden';
import { failure, sentence } from './support/refusals';

const device = 'cuda:0';
const drawn = (seed: number, dims: number[]) => new Generator(seed).randn(dims).data;
const values = (json: string) => Float32Array.from(JSON.parse(json) as number[]);

(cudaDevices.length === 0 ? describe.skip : describe)('memory of another process', () => {
  const opened = (handle: object) => `const x = sde.Tensor.fromIpcHandle(${JSON.stringify(handle)});`;
  const tell = `console.log(JSON.stringify([...(await x.getData())]));`;

  test.each([
    ['float32', [5, 3]],
    ['float16', [2, 1, 7]],
    ['bfloat16', [70_001]],
  ] as const)('what a generator writes here, %s %p, is read there', async (type, dims) => {
    const x = await new Generator(1).randnAsync(dims, { device, type });
    const handle = x.toIpcHandle();
    expect(Object.keys(handle)).toEqual(['type', 'dims', 'device', 'handle', 'offset']);
    const { stdout } = await outputs(`${opened(handle)} console.log(x.type, x.dims.join(), x.device); ${tell}`);
    const [face, json] = stdout.split('\n') as [string, string];
    expect(face).toBe(`${type} ${dims.join()} ${device}`);
    expect(JSON.parse(json)).toEqual([...new Generator(1).randn(dims, { type }).data]);
  });

  test('what is written there is read here, and stays when the other process ends', async () => {
    const x = Tensor.zeros([5, 3], { device });
    await x.getData();
    const script = `${opened(x.toIpcHandle())} await new sde.Generator(7).randnAsync([5, 3], { out: x }); x.dispose();`;
    await outputs(script);
    bitEqual(await x.getData(), drawn(7, [5, 3]));
  });

  test('a step here takes a score that a model left there', async () => {
    const model = start(`
      const score = await new sde.Generator(2).randnAsync([3, 100], { device: '${device}' });
      say(score.toIpcHandle());
      await released;
      score.dispose();
    `);
    const score = Tensor.fromIpcHandle((await model.next()) as IpcHandle);
    const scheduler = new ScoreSdeVeScheduler();
    const x = await new Generator(3).randn([3, 100]).to(device);
    const step = (m: Tensor, sample: Tensor) => scheduler.stepPred(m, 0.5, sample, { generator: new Generator(4) });
    const { prevSample } = step(score, x);
    const host = step(new Generator(2).randn([3, 100]), new Generator(3).randn([3, 100])).prevSample;
    bitEqual(await prevSample.getData(), host.data);
    score.dispose();
    expect(await model.end()).toBe(0);
    bitEqual(await x.getData(), drawn(3, [3, 100]));
  });

  test('a part of a block, by its offset; the same block twice is the same memory', async () => {
    const x = await new Generator(1).randnAsync([10], { device });
    const part = { ...x.toIpcHandle(), dims: [2, 2], offset: 12 };
    const { stdout } = await outputs(`
      ${opened(part)}
      ${tell}
      const whole = sde.Tensor.fromIpcHandle(${JSON.stringify(x.toIpcHandle())});
      console.log(x.cudaArrayInterface.data[0] - whole.cudaArrayInterface.data[0]);
      const out = sde.Tensor.fromIpcHandle(${JSON.stringify({ ...part, offset: 16 })});
      const steps = async () => new sde.ScoreSdeVeScheduler().stepPred(x, 0.5, x, { out });
      console.log((await steps().catch((error) => error)).code);
      whole.dispose();
      out.dispose();
      ${tell}
      console.log(await Promise.resolve().then(() => x.toIpcHandle()).catch((error) => error.message));
    `);
    const [before, distance, code, after, lent] = stdout.split('\n');
    bitEqual(values(before!), drawn(1, [10]).subarray(3, 7));
    bitEqual(values(after!), drawn(1, [10]).subarray(3, 7));
    expect([distance, code]).toEqual(['12n', 'ERR_ALIAS']);
    expect(lent).toMatch(/clone\(\) it first/);
  });

  describe('is refused', () => {
    const errorOf = async (handle: object) => {
      const { stdout } = await outputs(`
        const error = await Promise.resolve().then(() => { ${opened(handle)} return x; }).catch((e) => e);
        console.log(JSON.stringify([error.code, error.message]));
        console.log((await sde.Tensor.zeros([1], { device: '${device}' }).getData())[0]);
      `);
      const [error, zero] = stdout.split('\n') as [string, string];
      expect(zero).toBe('0');
      return JSON.parse(error) as [string, string];
    };
    const exported = () => {
      const x = Tensor.zeros([5, 3], { device });
      return { x, handle: x.toIpcHandle() };
    };

    test('once it was freed', async () => {
      const { x, handle } = exported();
      x.dispose();
      emptyCache();
      const [code, message] = await errorOf(handle);
      expect([code, message]).toEqual(['ERR_CUDA', expect.stringMatching(/^cudaIpcOpenMemHandle: cudaError\w+: /)]);
    });

    test('by bytes that are no handle', async () => {
      const handle = { ...exported().handle, handle: Buffer.alloc(64, 'nonsense').toString('base64') };
      expect((await errorOf(handle))[0]).toBe('ERR_CUDA');
    });

    test('with more elements than the block has', async () => {
      const { handle } = exported();
      const [code, message] = await errorOf({ ...handle, dims: [2 ** 30] });
      expect([code, message]).toEqual(['ERR_SHAPE', expect.stringMatching(/4294967296 bytes from offset 0 on/)]);
      expect((await errorOf({ ...handle, dims: [1], offset: 2 ** 40 }))[0]).toBe('ERR_SHAPE');
    });

    test('in the process whose memory it is', () => {
      const { x, handle } = exported();
      sentence(
        failure(() => Tensor.fromIpcHandle(handle)),
        'ERR_CUDA',
        /another process/,
      );
      expect(x.disposed).toBe(false);
    });

    test.each([
      ['no type', { type: undefined }, 'ERR_DTYPE', /type must be one of/],
      ['another type', { type: 'float8' }, 'ERR_DTYPE', /"float8"/],
      ['no dims', { dims: undefined }, 'ERR_SHAPE', /dims/],
      ['dims of a text', { dims: '5,3' }, 'ERR_SHAPE', /dims/],
      ['no handle', { handle: undefined }, 'ERR_CONFIG', /base64 of 64 bytes/],
      ['a short handle', { handle: 'AAAA' }, 'ERR_CONFIG', /base64 of 64 bytes/],
      ['the CPU', { device: 'cpu' }, 'ERR_CONFIG', /must be a CUDA device/],
      ['no such device', { device: 'cuda:99' }, 'ERR_CUDA_UNAVAILABLE', /cuda:99/],
      ['an offset within an element', { offset: 2 }, 'ERR_CONFIG', /offset must be .* multiple of the 4/],
      ['an offset below 0', { offset: -4 }, 'ERR_CONFIG', /offset/],
      ['an offset of a text', { offset: '4' }, 'ERR_CONFIG', /offset/],
    ] as const)('%s', (_, change, code, says) => {
      const handle = { ...exported().handle, ...change } as unknown as IpcHandle;
      sentence(
        failure(() => Tensor.fromIpcHandle(handle)),
        code,
        says,
      );
    });

    test.each([undefined, null, 5, '{}', []])('%p', (handle) => {
      sentence(
        failure(() => Tensor.fromIpcHandle(handle as never)),
        'ERR_DTYPE',
        /type must be one of/,
      );
    });
  });
});
