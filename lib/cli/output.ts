import { basename, dirname, extname, join, resolve } from 'node:path';
import { reasonOf, ScoreSdeError } from '../errors';
import { assertWritable, writeWhole } from '../files';

/** Set once standard output takes no more: its pipe is closed, or its disk is full. */
let lost: ScoreSdeError | undefined;

/** Calls `tell` with ERR_IO, once, when standard output takes no more. */
export function onLostOutput(tell: (error: ScoreSdeError) => void): void {
  process.stdout.on('error', (cause: Error) => {
    if (lost !== undefined) return;
    lost = outputError(cause);
    tell(lost);
  });
  // Nobody is left to be told where standard error takes no more.
  process.stderr.on('error', () => {});
}

const outputError = (cause: Error) =>
  new ScoreSdeError('ERR_IO', `cannot write to standard output: ${reasonOf(cause)}`, { cause });

/** Writes a line to standard output. ERR_IO where it takes no more. */
export function say(line: string): void {
  if (lost !== undefined) throw lost;
  process.stdout.write(`${line}\n`);
}

/** Writes a line to standard error. */
export function warn(line: string): void {
  process.stderr.write(`score-sde: ${line}\n`);
}

/** Where a picture goes, and where what is said about it goes. */
export interface Output {
  /** The file's path, or '-'. */
  readonly name: string;
  write(file: Uint8Array): Promise<void>;
  say(line: string): void;
}

/**
 * A PNG file by its path, or standard output by '-': then words go to standard error. With `index` it is the file of one image
 * of several, x-INDEX.png for x.png. ERR_CONFIG (another format's name, images one by one to standard output), ERR_IO (not writable).
 */
export async function pngOutput(out: string, index?: number): Promise<Output> {
  if (out === '-' && index !== undefined)
    throw new ScoreSdeError('ERR_CONFIG', '--each writes a file for each image, and --out - names standard output');
  if (out === '-')
    return {
      name: out,
      write: (file) =>
        new Promise((resolve, reject) =>
          process.stdout.write(file, (error) => (error ? reject(outputError(error)) : resolve())),
        ),
      say: (line) => void process.stderr.write(`${line}\n`),
    };
  const path = resolve(out);
  const ending = extname(path);
  if (!['', '.png'].includes(ending.toLowerCase()))
    throw new ScoreSdeError('ERR_CONFIG', `--out must end in .png, as a PNG is written, got ${basename(path)}`);
  const name = index === undefined ? path : join(dirname(path), `${basename(path, ending)}-${index}${ending}`);
  await assertWritable(name);
  return { name, write: (file) => writeWhole(name, file), say };
}

/** ERR_SHAPE unless samples are pictures that a PNG can hold. Asked before long work. */
export function assertPictures(sampleShape: readonly number[]): void {
  if (sampleShape.length !== 3 || ![1, 3, 4].includes(sampleShape[0]!))
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `a PNG holds samples of [1, 3 or 4 channels, height, width], and the model's are of [${sampleShape.join(', ')}]`,
    );
}
