import { Dtype, NoiseKind, RowNormals, type Noise } from '../native/abi';
import type { Call } from '../native/call';
import { Generator, planRandn } from '../random/generator';
import type { Stage } from '../solvers/solver';
import { batchShape, operand, type Operand } from '../tensor/operand';
import type { Tensor, TensorLike } from '../tensor/tensor';
import { rowsOf } from '../tensor/views';
import type { Lane } from './lane';

/** What a lane and its update ask of the noise. */
export interface Asked {
  readonly lane: Lane;
  readonly stage: Stage;
  /** Whether the update adds noise; a draw that is taken otherwise is dropped. */
  readonly isUsed: boolean;
}

/** The normals of one update of a batch. */
export interface Draws {
  /** Takes the draws from their streams, at the moment of the call. */
  take(): Noise | [kind: typeof NoiseKind.none, source: null, type: Dtype];
  /** Normals in memory, of the rows that say so. */
  readonly given: Operand | undefined;
  /** Where each lane's normals come from. */
  readonly normals: readonly RowNormals[];
  /** The element of its stream's counter at which a row begins. */
  readonly phases: readonly number[];
  /** Memory of generators that the call writes to. */
  readonly states: readonly object[];
}

/** What draws need of a batch. */
export interface Pool {
  readonly rows: number;
  readonly cols: number;
  readonly device: string;
  /** Memory for normals, of the pool's shape. */
  given(): Tensor<'float32'>;
  /** Memory of the pool's shape whose content nobody needs. */
  scratch(): Tensor<'float32'>;
  run(call: Call<void>): Promise<void>;
  /** Copies a tensor of any state type, from wherever it lies. */
  write(from: TensorLike, to: Tensor<'float32'>, name: string): Promise<void>;
}

const isTorch = (lane: Lane): boolean => 'generators' in lane.noise && lane.noise.generators[0]!.engine === 'torch';

/** Draws, in the order of the lanes' rows. What only the host can draw, or the caller gives, is brought to memory now. */
export async function drawsOf(asked: readonly Asked[], pool: Pool): Promise<Draws> {
  const { rows, cols, device } = pool;
  const [only] = asked;
  const isAlone = asked.length === 1;
  const normals: RowNormals[] = [];
  const phases: number[] = [];
  let given: Tensor<'float32'> | undefined;
  /** The generators of a lane that draws alone, in the kernel itself. */
  let within: readonly Generator[] | undefined;
  for (const { lane, stage, isUsed } of asked) {
    const { noise } = lane;
    let from: RowNormals = RowNormals.none;
    if ('sampler' in noise) {
      if (isUsed) {
        from = RowNormals.given;
        given ??= pool.given();
        const drawn = noise.sampler(...levelsOf(lane, stage));
        await pool.write(drawn, rowsOf(given, lane.first, lane.rows), "noiseSampler's result");
      }
    } else if (stage.draws === 1) {
      const torch = isTorch(lane);
      if (torch && (!isUsed || !isAlone || device !== 'cpu')) {
        const into = rowsOf(isUsed ? (given ??= pool.given()) : pool.scratch(), lane.first, lane.rows);
        const drawn = operand(into, 'noise');
        await pool.run(planRandn(noise.generators, drawn, batchShape(drawn)));
        if (isUsed) from = RowNormals.given;
      } else if (isUsed) {
        from = RowNormals.drawn;
        if (isAlone) within = noise.generators;
      } else {
        Generator.reserve(noise.generators, lane.rows, cols, Dtype.float32); // the stream passes over the draw
      }
    }
    normals.push(from);
  }
  const isDrawn = normals.includes(RowNormals.drawn);
  if (isDrawn && !isAlone) asked.forEach(({ lane }, i) => phases.push(...phasesOf(lane, cols, normals[i]!)));
  const memory = given && operand(given, 'noise');
  return {
    normals,
    phases,
    given: memory,
    states: within === undefined ? [] : Generator.memory(within),
    take: () => {
      if (within) return Generator.reserve(within, only!.lane.rows, cols, Dtype.float32);
      if (!isDrawn)
        return memory === undefined
          ? [NoiseKind.none, null, Dtype.float32]
          : [NoiseKind.given, memory.memory, Dtype.float32];
      const streams = new BigUint64Array(2 * rows);
      asked.forEach(({ lane }, i) => {
        if (normals[i] === RowNormals.drawn) streams.set(streamsOf(lane, cols), 2 * lane.first);
      });
      return [NoiseKind.philox, streams, Dtype.float32];
    },
  };
}

/** The levels between which a stage's noise takes x, as a sampler of noise is told. */
function levelsOf({ levels }: Lane, { step, noiseLevels }: Stage): readonly [number, number] {
  return noiseLevels ?? [levels.sigma[step]!, levels.next[step]!];
}

/** (key, counter) of each row of a lane whose philox generators draw next. */
function streamsOf(lane: Lane, cols: number): bigint[] {
  const { generators } = lane.noise as { generators: readonly Generator[] };
  const [, streams] = Generator.reserve(generators, lane.rows, cols, Dtype.float32);
  if (generators.length > 1 || lane.rows === 1) return Array.from(streams as unknown as ArrayLike<bigint>);
  const [key, counter] = streams as unknown as readonly [bigint, bigint];
  // One draw for all rows, in row-major order.
  return Array.from({ length: lane.rows }, (_, row) => [key, counter + BigInt(Math.floor((row * cols) / 4))]).flat();
}

function phasesOf(lane: Lane, cols: number, normals: RowNormals): number[] {
  const isOne = 'generators' in lane.noise && lane.noise.generators.length === 1;
  return Array.from({ length: lane.rows }, (_, row) => (isOne && normals === RowNormals.drawn ? (row * cols) % 4 : 0));
}
