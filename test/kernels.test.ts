import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { kernelsOf, shortestWay, type Needs, type Pipe } from './support/machine-code';
import { root } from './support/paths';
import { compile } from './support/programs';

// The CUDA kernels on the host, against the CPU's, under AddressSanitizer: see test/native/cuda.cpp.
test('the emulated kernels give the bits of the CPU, within their memory', () => {
  const build = compile('emulated', ['cuda-parity', 'cuda-bench'], '--CDCUDA=EMULATE', '--CDSANITIZE=address');
  // The older device is idle whenever it is asked, so that no noise is measured ahead.
  for (const device of [{ EMULATED_COMPUTE: '9.0' }, { EMULATED_COMPUTE: '8.0', EMULATED_IDLE: '1' }]) {
    const env = { ...process.env, ...device, LD_PRELOAD: '', ASAN_OPTIONS: 'detect_leaks=1' };
    const { stdout, stderr, status } = spawnSync(join(build, 'cuda-parity'), ['brief'], { encoding: 'utf8', env });
    expect(stderr.slice(0, 2000)).toBe('');
    expect(stdout).toMatch(/^\d{7,} values are equal\n$/);
    expect(status).toBe(0);
  }
}, 600_000);

const nvcc = spawnSync('nvcc', ['--version']).status === 0;

/** Multiplications with an addition that math/ writes as fma(); every other would be a contraction. */
const written = /\bfma\b/g;

(nvcc ? describe : describe.skip)('compiled for a GPU', () => {
  const folder = mkdtempSync(join(tmpdir(), 'score-sde-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  // The oldest, the chief and the newest architecture.
  const architectures = ['75', '90', '120'];
  /** What the compilers say, by architecture; their intermediate files stay in folders of these names. */
  const said: Record<string, string> = {};

  beforeAll(async () => {
    const compileFor = async (arch: string) => {
      const keep = join(folder, arch);
      mkdirSync(keep);
      const { stdout, stderr } = await promisify(execFile)('nvcc', [
        ...[
          '-std=c++20',
          '-O3',
          ...['-fmad=false', '-ftz=false', '-prec-div=true', '-prec-sqrt=true'],
          `-I${join(root, 'native')}`,
          '-Xptxas=-v',
          '--keep',
          '--keep-dir',
          keep,
        ],
        ...[`-gencode=arch=compute_${arch},code=sm_${arch}`, '-c', join(root, 'native', 'cuda', 'backend.cu')],
        ...['-o', join(keep, 'backend.o')],
      ]);
      said[arch] = stderr + stdout;
    };
    await Promise.all(architectures.map(compileFor));
  }, 600_000);

  test.each(architectures)('no kernel spills registers: sm_%s', (arch) => {
    const kernels = said[arch]!.split(/Compiling entry function '/).slice(1);
    expect(kernels.length).toBeGreaterThanOrEqual(16);
    const report: Record<string, number> = {};
    for (const text of kernels) {
      const name = /^_ZN\d+score_sde\d+cuda\d+(\w+?)E+v/.exec(text)?.[1] ?? text.slice(0, 60);
      const spilt = /(\d+) bytes spill stores, (\d+) bytes spill loads/.exec(text)?.slice(1);
      expect([name, spilt]).toEqual([name, ['0', '0']]);
      report[name] = Number(/Used (\d+) registers/.exec(text)![1]);
      // 640 threads of a multiprocessor may have 96 each, 512 have 128: enough where each has 8 to 16 loads of 128 bits under way.
      expect(report[name]).toBeLessThanOrEqual(
        /LinearILi[23]/.test(name) ? 128 : /^update|SumsE2/.test(name) ? 96 : 80,
      );
    }
    process.stdout.write(`registers, sm_${arch}: ${JSON.stringify(report)}\n`);
  });

  test.each(architectures)('no multiplication and addition are contracted: compute_%s', (arch) => {
    const text = readFileSync(join(folder, arch, 'backend.ptx'), 'utf8');
    expect(text).not.toMatch(/\bmad\.(rn\.)?f(32|64)/);
    // Box-Muller is the only place with fma() in float32: so many of them for a pair of normals, two pairs to a counter.
    const header = readFileSync(join(root, 'native', 'math', 'normal.hpp'), 'utf8');
    const perPair = [...header.matchAll(written)].length;
    const kernels = text.split(/\.entry /).slice(1);
    expect(kernels.length).toBeGreaterThanOrEqual(16);
    for (const kernel of kernels) {
      // Squares are added in double by fma(), a quad at a time; the rest of the norms' kernels has none.
      expect([...kernel.matchAll(/\bfma\.rn\.f64/g)].length % 4).toBe(0);
      const found = [...kernel.matchAll(/\bfma\.rn\.f32/g)].length;
      expect(found % (2 * perPair)).toBe(0);
    }
  });

  // The fast ways of the kernels, from their first instruction to their last, by the thread's elements.
  test('a GPU can issue a step in float32 while its memory moves it, and one in 16 bits in less time', () => {
    const kernels = kernelsOf(readFileSync(join(folder, '90', 'backend.cubin')));
    const types = ['float32', 'float16', 'bfloat16'];
    const counted = (kernel: string, type: string, elements: number, needs: Needs, sums = '') => {
      const name = `${kernel}LNS0_5TypesE${types.indexOf(type)}E${sums}`;
      const code = [...kernels].filter(([mangled]) => mangled.includes(name));
      expect(code).toHaveLength(1);
      const way = shortestWay(code[0]![1], needs);
      return Object.fromEntries(Object.entries(way).map(([pipe, count]) => [pipe, count / elements]));
    };
    const table = types.flatMap((type) => {
      const accesses = type === 'float32' ? 4 : 2; // of 128 bits, to an operand's sixteen elements
      const sixteen = (roots: number, operands: number): Needs => {
        return { roots, loads: accesses * operands, stores: accesses, width: 128 };
      };
      const bytes = type === 'float32' ? 4 : 2;
      return [
        { step: 'randn', type, bytes, ...counted('updateINS0_5StoreE', type, 16, sixteen(8, 0)) },
        { step: 'stepPred', type, bytes: 3 * bytes, ...counted('updateINS0_7PredictE', type, 16, sixteen(9, 2)) },
        ...['norms', 'noise', 'score'].map((step, sums) => {
          const needs = { roots: sums === 2 ? 0 : 16, loads: sums === 1 ? 0 : 8, stores: 0 };
          return {
            step,
            type,
            bytes: sums === 1 ? 0 : bytes,
            ...counted('normsI', type, 32, { ...needs, width: bytes === 4 ? 128 : 64 }, `LNS0_4SumsE${sums}E`),
          };
        }),
        { step: 'correct', type, bytes: 3 * bytes, ...counted('updateINS0_7CorrectE', type, 16, sixteen(9, 2)) },
        { step: 'linear1', type, bytes: 3 * bytes, ...counted('updateINS0_6LinearILi1EEE', type, 16, sixteen(0, 2)) },
        { step: 'linear3', type, bytes: 6 * bytes, ...counted('updateINS0_6LinearILi3EEE', type, 16, sixteen(0, 4)) },
      ];
    }) as ({ step: string; type: string; bytes: number } & Record<Pipe | 'all', number>)[];
    // The table of docs/cuda.md: times in microseconds of 4x3x1024x1024 elements on an H200.
    const elements = 4 * 3 * 1024 * 1024;
    process.stdout.write('instructions an element, sm_90\n');
    for (const { step, type, bytes, all, fma, alu, double, special, other } of table) {
      const moving = (1e6 * elements * bytes) / 4.8e12;
      const issuing = (1e6 * elements * all) / (132 * 128 * 1.98e9);
      const counts = [all, fma, alu, double, special, other].map((count) => count.toFixed(1));
      process.stdout.write(
        `| ${[step, type, bytes, ...counts, moving.toFixed(1), issuing.toFixed(1)].join(' | ')} |\n`,
      );
    }
    // What an H100 and an H200 issue while their memory moves a byte.
    const budgets = [(132 * 128 * 1.755e9) / 3.0e12, (132 * 128 * 1.98e9) / 4.8e12];
    for (const { step, type, bytes, all } of table) {
      const moved = type === 'float32' ? bytes : 1.75 * bytes; // of twice the bytes, a step in float32's
      if (!['norms', 'noise', 'randn'].includes(step))
        for (const budget of budgets) expect([step, type, all < budget * moved]).toEqual([step, type, true]);
      else expect(all).toBeLessThan(70); // bound by the instructions of its normals
    }
  });
});
