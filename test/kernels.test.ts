import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { root } from './support/paths';
import { compile } from './support/programs';

// The CUDA kernels on the host, against the CPU's, under AddressSanitizer: see test/native/cuda.cpp.
test('the emulated kernels give the bits of the CPU, within their memory', () => {
  const build = compile('emulated', ['cuda-parity', 'cuda-bench'], '--CDCUDA=EMULATE', '--CDSANITIZE=address');
  for (const compute of ['9.0', '8.0']) {
    const env = { ...process.env, EMULATED_COMPUTE: compute, LD_PRELOAD: '', ASAN_OPTIONS: 'detect_leaks=1' };
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
      // Five blocks of 128 threads may have 96 each, which is enough where a thread has 16 loads of 128 bits under way.
      expect(report[name]).toBeLessThanOrEqual(/LinearILi3/.test(name) ? 96 : 80);
    }
    process.stdout.write(`registers, sm_${arch}: ${JSON.stringify(report)}\n`);
  });

  test.each(architectures)('no multiplication and addition are contracted: compute_%s', (arch) => {
    const text = readFileSync(join(folder, arch, 'backend.ptx'), 'utf8');
    expect(text).not.toMatch(/\bmad\.(rn\.)?f(32|64)|\bfma\.rn\.f64/);
    // Box-Muller is the only place with fma(): twenty of them for a pair of normals, two pairs to a counter.
    const header = readFileSync(join(root, 'native', 'math', 'normal.hpp'), 'utf8');
    const perPair = [...header.matchAll(written)].length;
    const kernels = text.split(/\.entry /).slice(1);
    expect(kernels.length).toBeGreaterThanOrEqual(16);
    for (const kernel of kernels) {
      const found = [...kernel.matchAll(/\bfma\.rn\.f32/g)].length;
      expect(found % (2 * perPair)).toBe(0);
    }
  });

  // PTX is not yet machine code, but nearly one to one with it here: what a disassembler counts may be some less.
  test('an H100 can issue what a normal takes while its memory moves the 12 bytes of an element', () => {
    const text = readFileSync(join(folder, '90', 'backend.ptx'), 'utf8');
    const header = readFileSync(join(root, 'native', 'math', 'normal.hpp'), 'utf8');
    const perPair = [...header.matchAll(written)].length;
    // The stretches of code that make normals, 76 fma() to eight of them.
    const counts = text.split(/^\$L\w+:/m).flatMap((block) => {
      const normals = 2 * ([...block.matchAll(/\bfma\.rn\.f32/g)].length / perPair);
      return normals === 0 ? [] : [[...block.matchAll(/^\s+(?:@!?%p\d+\s+)?[a-z][\w.]*\s/gm)].length / normals];
    });
    expect(counts.length).toBeGreaterThanOrEqual(16);
    process.stdout.write(`instructions a normal: ${Math.min(...counts)} to ${Math.max(...counts)}\n`);
    const [multiprocessors, lanes, clock, bandwidth] = [132, 128, 1.755e9, 3.0e12];
    const budget = (multiprocessors * lanes * clock) / (bandwidth / 12);
    expect(Math.max(...counts)).toBeLessThan(budget);
  });
});
