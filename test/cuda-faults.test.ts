// What becomes of a CUDA call that fails: in processes of their own, in which the emulator is told which call that is.
import { outputs, start } from './support/child';
import { isEmulated } from './support/devices';

jest.setTimeout(300_000);

/**
 * Operations that between them make every call of CUDA. Each gives numbers, and takes new memory; `foreign` is another
 * process's.
 */
const operations = `
  const foreign = process.env.FOREIGN ? JSON.parse(process.env.FOREIGN) : undefined;
  const { Generator, ScoreSdeVePipeline, ScoreSdeVeScheduler, Tensor, emptyCache, memoryUsage } = sde;
  const { signalStream, streamOf, toPng, waitForStream } = sde;
  const device = 'cuda:0';
  const fail = (call, n, code) => (process.env.EMULATED_FAULT = [call, n, code].join(' '));
  const turn = () => new Promise(setImmediate);
  require('node:v8').setFlagsFromString('--expose-gc');
  const gc = require('node:vm').runInNewContext('gc');
  const collect = async () => {
    for (let i = 0; i < 5; i++) gc(), await turn();
  };
  const scheduler = new ScoreSdeVeScheduler({ numTrainTimesteps: 20, sigmaMax: 2 });
  scheduler.setTimesteps(20);
  const there = async (seed, dims) => new Generator(seed).randn(dims).to(device);
  const each = (rows) => Array.from({ length: rows }, (_, i) => i / rows);
  const pipelineOf = (model) =>
    new ScoreSdeVePipeline({ scheduler, model, sampleShape: [1, 6, 7], device });
  const onDevice = Object.assign(async (x) => x.clone(), { devices: ['cuda'] });
  const onHost = async (x) => new Tensor('float32', x.data.slice(), x.dims);
  const runOf = (model, engine) => {
    const generator = new Generator(1, { engine });
    return pipelineOf(model).run({ batchSize: 2, numInferenceSteps: 2, generator });
  };
  const images = async (model, engine) => (await runOf(model, engine)).images.getData();
  const operations = {
    zeros: async () => Tensor.zeros([3001], { device }).getData(),
    copies: async () => (await (await there(1, [3, 5])).clone().to('cpu')).data,
    'large copies': async () => (await there(1, [2 ** 20 + 7])).getData(),
    'the other device': async () => (await new Generator(1).randn([50]).to('cuda:1')).getData(),
    randn: async () => new Generator(1).randn([77], { device }).getData(),
    'randn of torch': async () => (await new Generator(1, { engine: 'torch' }).randnAsync([77], { device })).getData(),
    stepPred: async () => {
      const [m, x] = [await there(1, [70, 5]), await there(2, [70, 5])];
      const generator = each(70).map((seed) => new Generator(Math.round(seed * 70)));
      return scheduler.stepPred(m, each(70), x, { generator }).prevSample.getData();
    },
    'stepPredAsync of torch': async () => {
      const [m, x] = [await there(1, [2, 5]), await there(2, [2, 5])];
      const generator = new Generator(1, { engine: 'torch' });
      const waiting = scheduler.stepPredAsync(m, 0.5, x, { generator, out: x });
      const after = scheduler.stepCorrectAsync(m, x, { generator, out: x });
      const ends = await Promise.allSettled([waiting, after]);
      for (const { reason } of ends) if (reason) throw reason;
      return x.getData();
    },
    'a small stepCorrect': async () => {
      const [m, x] = [await there(1, [2, 5]), await there(2, [2, 5])];
      return (await scheduler.stepCorrectAsync(m, x, { generator: new Generator(1) })).prevSample.getData();
    },
    'a large stepCorrect': async () => {
      const [m, x] = [await there(1, [1, 70000]), await there(2, [1, 70000])];
      return scheduler.stepCorrect(m, x, { generator: new Generator(1) }).prevSample.getData();
    },
    addNoise: async () => {
      const x = await there(1, [2, 1, 3, 3]);
      return scheduler.addNoise(x, undefined, 3, { generator: new Generator(1) }).getData();
    },
    'a pointer': async () => {
      const owner = await there(1, [12]);
      const tensor = Tensor.fromPointer(owner.cudaArrayInterface.data[0], [12], { owner, stream: streamOf() });
      const data = await tensor.getData();
      tensor.dispose();
      return data;
    },
    DLPack: async () => {
      const lent = (await there(1, [12])).toDLPack({ stream: streamOf() });
      let taken;
      try {
        taken = Tensor.fromDLPack(lent, { stream: streamOf() });
      } catch (error) {
        Tensor.fromDLPack(lent).dispose(); // it has stayed with its maker, who ends it
        throw error;
      }
      const data = await taken.getData();
      taken.dispose();
      return data;
    },
    ...(foreign && {
      'memory of another process': async () => {
        const x = Tensor.fromIpcHandle(foreign);
        const data = await x.getData();
        x.clone().toIpcHandle();
        x.dispose(); // last: the memory is closed by another thread, at any moment from here on
        return data;
      },
    }),
    streams: async () => (waitForStream(streamOf()), signalStream(streamOf()), []),
    'a picture': async () => toPng((await there(1, [2, 1, 6, 7]))),
    // Takes the words of those that are over.
    'a run on the device': async () => (await collect(), images(onDevice)),
    'a run with copies': () => images(onHost),
    'a run with noise of torch': () => images(onDevice, 'torch'),
    'the cache': async () => {
      Tensor.empty([5000], { device }).dispose();
      Tensor.empty([7000], { device }).dispose();
      emptyCache();
      return [memoryUsage().kept];
    },
  };
  const settled = async (operation) => operation().then((value) => ({ value }), (error) => ({ error }));
  const bytes = (data) => (data.buffer ? Buffer.from(data.buffer, data.byteOffset, data.byteLength) : Buffer.from(data));
  const same = (a, b) => bytes(a).equals(bytes(b));
`;

interface Faults {
  calls: string[];
  wrong: string[];
  leaked: number;
}

(isEmulated ? describe : describe.skip)('where CUDA fails', () => {
  const passing = 400; // cudaErrorInvalidResourceHandle, which ends nothing
  const name = (code: number) =>
    ({ 2: 'MemoryAllocation', 400: 'InvalidResourceHandle', 700: 'IllegalAddress', 719: 'LaunchFailure' })[code]!;

  test('whichever call it is: a typed error, nothing lost, and the next call is fine', async () => {
    const owner = start(`
      say((await new sde.Generator(1).randn([12]).to('cuda')).toIpcHandle());
      await released;
    `);
    const FOREIGN = JSON.stringify(await owner.next());
    const { stdout, stderr } = await outputs(
      `
      ${operations}
      const calls = new Set(), wrong = [];
      const check = (name, n, error) => {
        const says = /^(cuda[A-Z]\\w+): cudaErrorInvalidResourceHandle: emulated( \\(a handle is .*\\))?$/.exec(error.message);
        if (error.name !== 'ScoreSdeError' || error.code !== 'ERR_CUDA' || !says) wrong.push([name, n, error.stack]);
        else calls.add(says[1]);
      };
      // The first use of a device opens it; one that fails is repeated.
      sde.devices();
      const opening = [
        ...['cudaStreamCreateWithFlags', 'cudaEventCreateWithFlags'].flatMap((call) => [[call, 1], [call, 2]]),
        ['cudaSetDevice', 1],
        ['cudaGetDeviceProperties', 3],
        ['cudaStreamCreateWithFlags', 3],
        ['cudaFuncGetAttributes', 1],
        ['cudaDeviceGetAttribute', 1],
        ['cudaOccupancyMaxActiveBlocksPerMultiprocessor', 1],
      ];
      for (const [call, n] of opening) {
        fail(call, n, ${passing});
        const { error } = await settled(operations['the other device']);
        if (error) check('opening', n, error);
        else wrong.push(['opening', call, n, 'no error']);
      }
      let before;
      for (const [name, operation] of Object.entries(operations)) {
        const expected = await operation();
        for (let n = 1; ; n++) {
          emptyCache();
          fail('any', n, ${passing});
          const { value, error } = await settled(operation);
          const fired = process.env.EMULATED_FAULT === undefined;
          delete process.env.EMULATED_FAULT;
          if (error) check(name, n, error);
          if (error && !fired) wrong.push([name, n, 'an error without a fault', error.message]);
          if (!error && !same(value, expected)) wrong.push([name, n, 'another result']);
          if (!fired) break;
          const again = await settled(operation);
          if (again.error || !same(again.value, expected)) wrong.push([name, n, 'the next call', again.error?.message]);
        }
        if (before === undefined) {
          await operations.zeros();
          await operations['a large stepCorrect'](); // whose counters stay
          await collect();
          before = memoryUsage().used;
        }
      }
      for (let i = 0; i < 40 && memoryUsage().used > before; i++) await collect();
      console.log(JSON.stringify({ calls: [...calls].sort(), wrong, leaked: memoryUsage().used - before }));
    `,
      { FOREIGN },
      240_000,
    );
    expect(await owner.end()).toBe(0);
    expect(stderr).toBe('');
    const { calls, wrong, leaked } = JSON.parse(stdout) as Faults;
    expect(wrong).toEqual([]);
    // The collector may still hold what was last; a block for each failure would be hundreds.
    expect(leaked).toBeLessThanOrEqual(1024);
    expect(calls).toEqual([
      'cudaDeviceGetAttribute',
      'cudaEventCreateWithFlags',
      'cudaEventQuery',
      'cudaEventRecord',
      'cudaEventSynchronize',
      'cudaFree',
      'cudaFuncGetAttributes',
      'cudaGetDeviceProperties',
      'cudaIpcGetMemHandle',
      'cudaIpcOpenMemHandle',
      'cudaLaunchKernelEx',
      'cudaMalloc',
      'cudaMallocHost',
      'cudaMemcpyAsync',
      'cudaMemsetAsync',
      'cudaOccupancyMaxActiveBlocksPerMultiprocessor',
      'cudaPointerGetAttributes',
      'cudaSetDevice',
      'cudaStreamAddCallback',
      'cudaStreamCreateWithFlags',
      'cudaStreamIsCapturing',
      'cudaStreamQuery',
      'cudaStreamSynchronize',
      'cudaStreamWaitEvent',
      'cudaThreadExchangeStreamCaptureMode',
    ]);
  });

  test('a step, a run with a model on the device and the end of what they leave wait for no stream and no device', async () => {
    const { stdout } = await outputs(`
      ${operations}
      const [m, x] = [await there(1, [2, 500]), await there(2, [2, 500])];
      const [many, large] = [await there(1, [100, 5]), await there(1, [1, 40000])];
      const generator = new Generator(1);
      const one = () => {
        scheduler.stepCorrect(m, x, { generator, out: x });
        scheduler.stepPred(m, 0.5, x, { generator, out: x, returnMean: false });
        scheduler.stepPred(many, each(100), many, { generator: each(100).map(() => new Generator(1)) });
        scheduler.stepCorrect(large, large, { generator });
        scheduler.addNoise(Tensor.zeros([2, 1, 3, 3], { device }), undefined, 3, { generator });
        x.clone();
      };
      one();
      await images(onDevice);
      await collect();
      const waits = {};
      // Those that wait by their purpose, and those that do so besides.
      for (const call of ['cudaStreamSynchronize', 'cudaDeviceSynchronize', 'cudaFree', 'cudaFreeHost']) {
        fail(call, 1, ${passing});
        one();
        await images(onDevice);
        await collect();
        waits[call] = process.env.EMULATED_FAULT === undefined;
        delete process.env.EMULATED_FAULT;
      }
      // Of pinned memory's turn, for which a download waits by its purpose, and an upload where many are under way.
      fail('cudaEventSynchronize', 1, ${passing});
      await runOf(onDevice);
      waits.cudaEventSynchronize = process.env.EMULATED_FAULT === undefined;
      console.log(JSON.stringify(waits));
    `);
    expect(JSON.parse(stdout)).toEqual({
      cudaStreamSynchronize: false,
      cudaDeviceSynchronize: false,
      cudaFree: false,
      cudaFreeHost: false,
      cudaEventSynchronize: false,
    });
  });

  test('a run takes no word that the device may still write for one that is over', async () => {
    const { stdout } = await outputs(`
      ${operations}
      const first = await images(onDevice);
      await collect();
      fail('cudaEventQuery', 1, 600); // cudaErrorNotReady: its copy has not come yet
      const second = await images(onDevice);
      console.log(process.env.EMULATED_FAULT, same(first, second));
      // So there are two words now, enough for two runs at once.
      await collect();
      fail('cudaMallocHost', 1, ${passing});
      const both = await Promise.all([images(onDevice), images(onDevice)]);
      console.log(process.env.EMULATED_FAULT !== undefined, both.every((data) => same(first, data)));
    `);
    expect(stdout).toBe('undefined true\ntrue true\n');
  });

  test('where memory is short, all threads give back what they keep', async () => {
    const { stdout } = await outputs(
      `
      ${operations}
      const kept = (bytes) => Tensor.empty([bytes], { type: 'uint8', device }).dispose();
      const worker = inWorker(\`async () => {
        const usage = () => parentPort.postMessage(sde.memoryUsage());
        sde.Tensor.empty([2 ** 20], { type: 'uint8', device: 'cuda' }).dispose();
        sde.Tensor.empty([2 ** 20], { type: 'uint8', device: 'cuda:1' }).dispose();
        const used = sde.Tensor.zeros([7], { device: 'cuda' });
        usage();
        parentPort.on('message', async () => (usage(), parentPort.postMessage((await used.getData()).length), parentPort.close()));
      }\`);
      // A worker that ends gives its last messages at once: they are kept until they are read.
      const messages = require('node:events').on(worker, 'message');
      const heard = async () => (await messages.next()).value[0];
      const before = await heard();
      kept(2 ** 19);
      const large = Tensor.zeros([3 * 2 ** 17], { device });
      worker.postMessage('');
      const after = await heard();
      console.log(JSON.stringify([before, after, await heard(), memoryUsage().kept, memoryUsage('cuda:1').used]));
      // What is in use stays.
      const error = await settled(async () => Tensor.empty([2 ** 20], { type: 'uint8', device }));
      console.log(error.error.code);
    `,
      { EMULATED_MEMORY: String(2 ** 21) },
    );
    const [usages, code] = stdout.split('\n');
    expect(JSON.parse(usages!)).toEqual([{ used: 512, kept: 2 ** 20 }, { used: 512, kept: 0 }, 7, 0, 0]);
    expect(code).toBe('ERR_MEMORY');
  });

  test('counters, too, are worth what the pools keep', async () => {
    const { stdout } = await outputs(`
      ${operations}
      const [m, x] = [Tensor.zeros([600, 5], { device }), Tensor.zeros([601, 5], { device })];
      const correct = (state) => scheduler.stepCorrect(state, state, { generator: new Generator(1), out: state });
      correct(m);
      // In blocks of the same sizes, but for the counters of one more row.
      fail('cudaMalloc', 1, 2);
      correct(x);
      console.log(process.env.EMULATED_FAULT);
    `);
    expect(stdout).toBe('undefined\n');
  });

  test('a wait for a stream that fails: the owner of a pointer is not told, a tensor stays with its maker', async () => {
    const { stdout } = await outputs(`
      ${operations}
      const owner = await there(1, [12]);
      let told = 0;
      fail('cudaStreamWaitEvent', 1, ${passing});
      const options = { release: () => told++, stream: streamOf() };
      const error = await settled(async () => Tensor.fromPointer(owner.cudaArrayInterface.data[0], [12], options));
      const lent = await there(2, [12]);
      const external = lent.toDLPack();
      lent.dispose();
      const { used } = memoryUsage();
      fail('cudaStreamWaitEvent', 1, ${passing});
      const taken = await settled(async () => Tensor.fromDLPack(external, { stream: streamOf() }));
      for (let i = 0; i < 3; i++) await turn();
      const still = memoryUsage().used === used;
      Tensor.fromDLPack(external).dispose();
      while (memoryUsage().used === used) await turn();
      const again = await settled(async () => Tensor.fromDLPack(external));
      console.log(JSON.stringify({
        codes: [error, taken, again].map(({ error }) => error.code),
        told,
        still,
        freed: used - memoryUsage().used,
      }));
    `);
    expect(JSON.parse(stdout)).toEqual({
      codes: ['ERR_CUDA', 'ERR_CUDA', 'ERR_STATE'],
      told: 0,
      still: true,
      freed: 512,
    });
  });

  test.each([
    ['a kernel at work', 'kernel', 700],
    ['a launch', 'cudaLaunchKernelEx', 719],
    ['a copy', 'cudaMemcpyAsync', 700],
    ['work that is told of at its end', 'callback', 719],
  ])('a device that is lost by %s: the same error from then on, and a clean end', async (_, call, code) => {
    const { stdout, stderr } = await outputs(`
      ${operations}
      await operations.randn();
      const [m, x] = [await there(1, [2, 500]), await there(2, [2, 500])];
      fail('${call}', 2, ${code});
      const generator = new Generator(1);
      const flight = Array.from({ length: 4 }, () => settled(() => scheduler.stepPredAsync(m, 0.5, x, { generator })));
      flight.push(settled(() => images(onHost)), settled(() => images(onDevice, 'torch')), settled(() => m.getData()));
      const first = await Promise.all(flight);
      const failed = first.filter(({ error }) => error).map(({ error }) => error);
      const after = {};
      for (const [name, operation] of Object.entries(operations)) after[name] = (await settled(operation)).error;
      const worker = inWorker(\`async () => {
        let error;
        try {
          sde.Tensor.zeros([3], { device: 'cuda' });
        } catch (thrown) {
          error = thrown;
        }
        parentPort.postMessage([error?.code, error?.message]);
      }\`);
      const [elsewhere] = await require('node:events').once(worker, 'message');
      m.dispose();
      x.dispose();
      const told = (error) => [error?.name, error?.code, error?.message];
      console.log(JSON.stringify({ failed: failed.map(told), after: Object.entries(after).map(([name, error]) => [name, ...told(error)]), elsewhere }));
    `);
    expect(stderr).toBe('');
    const { failed, after, elsewhere } = JSON.parse(stdout) as {
      failed: string[][];
      after: string[][];
      elsewhere: string[];
    };
    const says = new RegExp(`^(cuda[A-Z]\\w+|a kernel): cudaError${name(code)}: emulated$`);
    expect(failed.length).toBeGreaterThan(0);
    for (const error of failed) expect(error).toEqual(['ScoreSdeError', 'ERR_CUDA', expect.stringMatching(says)]);
    for (const [operation, ...error] of after)
      expect([operation, ...error]).toEqual([operation, 'ScoreSdeError', 'ERR_CUDA', expect.stringMatching(says)]);
    // Another environment learns of it when it asks what devices there are, or when it opens one.
    expect(elsewhere).toEqual([expect.stringMatching(/^ERR_CUDA/), expect.stringContaining(name(code))]);
  });

  test('a worker ends while its device is lost', async () => {
    const { stdout, stderr } = await outputs(`
      ${operations}
      sde.devices();
      fail('kernel', 20, 700);
      const worker = inWorker(\`async () => {
        const { Generator, ScoreSdeVeScheduler, Tensor } = sde;
        const x = await new Generator(1).randn([2, 5000]).to('cuda');
        parentPort.postMessage('ready');
        const scheduler = new ScoreSdeVeScheduler();
        for (;;) await scheduler.stepPredAsync(x, 0.5, x, { generator: new Generator(1) }).catch(() => {});
      }\`);
      await require('node:events').once(worker, 'message');
      while (process.env.EMULATED_FAULT) await turn();
      console.log(await worker.terminate(), (await settled(operations.zeros)).error.code);
    `);
    expect(stderr).toBe('');
    expect(stdout.trim()).toBe('1 ERR_CUDA');
  });

  test.each([
    ['0', 'there is no NVIDIA driver: install one to use a GPU'],
    ['12040', 'the NVIDIA driver is one of CUDA 12.4, older than the 13.0 that this build needs: update it'],
  ])('a driver of CUDA %s', async (driver, reason) => {
    const { stdout } = await outputs(
      `
      const error = await Promise.resolve().then(() => sde.Tensor.empty([1], { device: 'cuda' })).catch((e) => e);
      console.log(JSON.stringify([sde.devices().slice(1), error.code, error.message, sde.Tensor.empty([1], { device: 'auto' }).device]));
      `,
      { EMULATED_DRIVER: driver },
    );
    expect(JSON.parse(stdout)).toEqual([
      [{ device: 'cuda', name: 'CUDA', available: false, reason }],
      'ERR_CUDA_UNAVAILABLE',
      expect.stringContaining(reason),
      'cpu',
    ]);
  });

  test('a device of which nothing can be learned keeps its number, the next one can be used, and so can it later', async () => {
    const { stdout } = await outputs(`
      const fault = () => (process.env.EMULATED_FAULT = 'cudaGetDeviceProperties 1 ${passing}');
      fault();
      const [, first, second] = sde.devices();
      fault();
      const error = await Promise.resolve().then(() => sde.Tensor.empty([1], { device: 'cuda' })).catch((e) => e);
      fault();
      const { device } = sde.Tensor.empty([1], { device: 'auto' });
      const later = sde.Tensor.empty([1], { device: 'cuda' }).device;
      console.log(JSON.stringify([first, error.code, error.message, second.device, device, later]));
    `);
    const reason: unknown = expect.stringContaining('cudaGetDeviceProperties: cudaErrorInvalidResourceHandle');
    expect(JSON.parse(stdout)).toEqual([
      { device: 'cuda:0', name: 'CUDA device', available: false, reason },
      'ERR_CUDA_UNAVAILABLE',
      reason,
      'cuda:1',
      'cuda:1',
      'cuda:0',
    ]);
  });
});
