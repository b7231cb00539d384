import { inspect, type InspectOptions } from 'node:util';
import { widened, type TensorData, type TensorType } from './data';

/** A Tensor, as far as this file uses it. */
interface Displayed {
  readonly type: TensorType;
  readonly dims: readonly number[];
  readonly device: string;
  readonly disposed: boolean;
  readonly data: TensorData;
}

/** A tensor as JSON. */
export interface TensorJson {
  readonly type: TensorType;
  readonly dims: readonly number[];
  /** The elements, 16-bit floats as their bits. */
  readonly data: (number | string)[];
}

/** See Tensor.toJSON. */
export function jsonOf({ type, dims, data }: Displayed): TensorJson {
  const element = (value: number | bigint) => (Number.isFinite(value) ? (value as number) : String(value));
  return { type, dims, data: Array.from(data as ArrayLike<number | bigint>, element) };
}

/** Elements that are shown of a tensor. */
const most = 8;

/** @internal What console.log shows: class, type, dims, place and the first values. Only those are read. */
export function inspected(tensor: Displayed, name: string, options: InspectOptions): string {
  const { type, dims, device, disposed } = tensor;
  const head = `${name}(${type} [${dims.join(', ')}]`;
  if (disposed) return `${head}, disposed)`;
  if (device !== 'cpu') return `${head} on ${device})`;
  const { data } = tensor;
  const shown = Array.from<number | bigint>(widened(data.subarray(0, most), type) as ArrayLike<number>);
  const values = shown.map((value) => inspect(value, options));
  if (data.length > most) values.push(`... ${data.length - most} more`);
  return `${head}) ${values.length > 0 ? `[ ${values.join(', ')} ]` : '[]'}`;
}
