import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { devices } from '../lib';
import { everywhere } from './support/digests';
import { compile } from './support/programs';

let build: string;
const machine = devices()[0]!.architecture!;
const sets = ['x86-64', 'x86-64-v3', 'x86-64-v4'];
const lesser = process.platform === 'linux' ? sets.slice(0, Math.max(sets.indexOf(machine), 0)) : [];

const emulators = ['qemu-x86_64', 'qemu-x86_64-static'].filter((name) =>
  (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, name))),
);
const processors: Record<string, string> = { 'x86-64': 'Nehalem', 'x86-64-v3': 'Haswell' };

interface Run {
  name: string;
  /** The instruction set that the program says it uses. */
  set: string;
  program: string;
  emulator?: string[];
}

// The clones for a lesser processor, chosen by a description of one; and on a whole one, where there is an emulator.
const runs: Run[] = lesser.flatMap((set) => [
  { name: `the clones for ${set}`, set, program: `digest-${set}` },
  ...emulators.map((qemu) => {
    const emulator = [qemu, '-cpu', processors[set]!];
    return { name: emulator.join(' '), set, program: 'digest', emulator };
  }),
]);

function print({ program, emulator = [] }: Pick<Run, 'program' | 'emulator'>): string[] {
  const [command, ...args] = [...emulator, join(build, program)];
  return execFileSync(command!, args, { encoding: 'utf8', stdio: 'pipe' }).trim().split('\n');
}

beforeAll(() => {
  build = compile('cmake', new Set(['digest', ...runs.map(({ program }) => program)]));
}, 180_000);

test('this machine computes the bits that every machine does, with the instruction set of the addon', () => {
  const [set, ...lines] = print({ program: 'digest' });
  expect(set).toBe(machine);
  expect(lines.filter((line) => !line.startsWith('libm'))).toEqual(everywhere);
});

if (runs.length > 0)
  test.each(runs)(
    '$name: the same bits, the lines of the C library among them',
    (run) => {
      expect(print(run)).toEqual([run.set, ...print({ program: 'digest' }).slice(1)]);
    },
    60_000,
  );
