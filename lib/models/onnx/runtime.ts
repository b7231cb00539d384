import { reasonOf, ScoreSdeError } from '../../errors';
import { isFile } from '../../files';
import type { SessionLike } from '../session';

/** The part of onnxruntime-node that is used. */
export interface OnnxRuntime {
  InferenceSession: { create(network: string | Uint8Array, options: object): Promise<SessionLike> };
  listSupportedBackends?(): { name: string; bundled: boolean }[];
  env: { versions: { common: string; node?: string | undefined } };
}

/** onnxruntime-node: an optional peer, so it is loaded when it is first needed. ERR_MODEL. */
export function onnxRuntime(): OnnxRuntime {
  try {
    // eslint-disable-next-line @typescript-eslint/no-require-imports
    return require('onnxruntime-node') as OnnxRuntime;
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND';
    throw new ScoreSdeError(
      'ERR_MODEL',
      missing
        ? 'onnxruntime-node is needed to run a network and is not installed: npm install onnxruntime-node'
        : `onnxruntime-node cannot be loaded: ${reasonOf(cause)}`,
      { cause },
    );
  }
}

/** A session of onnxruntime-node for an ONNX file, on an execution provider. ERR_MODEL. */
export async function openSession(file: string, provider = 'cpu'): Promise<SessionLike> {
  if (!(await isFile(file)))
    throw new ScoreSdeError(
      'ERR_MODEL',
      `${file}: no such file; the network must be there as ONNX, other weights are not read`,
    );
  const { InferenceSession } = onnxRuntime();
  try {
    return await InferenceSession.create(file, { executionProviders: [provider], logSeverityLevel: 4 });
  } catch (cause) {
    throw new ScoreSdeError('ERR_MODEL', `${file} cannot be loaded: ${reasonOf(cause)}`, { cause });
  }
}
