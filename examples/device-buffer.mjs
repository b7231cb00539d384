// Memory of a GPU in two processes: a step here takes the score that a model in another process left on the device, and no
// element passes through either host: node examples/device-buffer.mjs
import { fork } from 'node:child_process';
import { Generator, ScoreSdeVeScheduler, Tensor, devices } from 'score-sde';

const dims = [4, 3, 64, 64];
const score = (seed, options) => new Generator(seed).randnAsync(dims, options); // a stand-in for a network

/** The other process: it makes room for a score, says where that is, and fills it when it is asked to. */
async function model() {
  const out = Tensor.empty(dims, { device: 'cuda' });
  process.on('message', async (seed) => {
    if (seed === null) return process.disconnect();
    await score(seed, { out }); // resolves when the device has done it: streams have no order across processes
    process.send('done');
  });
  process.send(out.toIpcHandle());
}

async function main() {
  const { available, reason } = devices().find(({ device }) => device.startsWith('cuda'));
  if (!available) {
    console.error(`this example needs a CUDA device: ${reason}`);
    process.exitCode = 1;
    return;
  }
  const other = fork(process.argv[1], ['model']);
  const heard = () => new Promise((resolve) => other.once('message', resolve));
  const theirs = Tensor.fromIpcHandle(await heard());

  const scheduler = new ScoreSdeVeScheduler();
  const generator = new Generator(7);
  let x = await new Generator(1).randn(dims).to('cuda');
  for (const [step, t] of [1, 0.5].entries()) {
    other.send(step);
    await heard();
    ({ prevSample: x } = await scheduler.stepPredAsync(theirs, t, x, { generator }));
  }
  theirs.dispose(); // before the other process lets go of it
  other.send(null);

  // What another addon of this process has on the device is used by its address, or as a DLPack tensor.
  const address = x.cudaArrayInterface.data[0];
  const shared = Tensor.fromPointer(address, dims, { owner: x, stream: x.cudaArrayInterface.stream });
  const found = await shared.getData();

  // The same on the CPU.
  const again = new Generator(7);
  let y = new Generator(1).randn(dims);
  for (const [step, t] of [1, 0.5].entries())
    y = scheduler.stepPred(await score(step), t, y, { generator: again }).prevSample;
  const differ = found.filter((value, i) => !Object.is(value, y.data[i])).length;
  console.log(
    `${x.device}: two steps with the score of process ${other.pid}, ${differ} elements differ from the CPU's`,
  );
}

await (process.argv[2] === 'model' ? model() : main());
