import { OnnxModel, type OnnxModelOptions } from '../../lib';

/** Loads networks with these options unless a test gives others, and disposes of them after the suite. */
export function loader(usual: OnnxModelOptions = {}) {
  const models: OnnxModel[] = [];
  afterAll(async () => {
    for (const model of models) await model.dispose();
  });
  return async (network: string | Uint8Array | ArrayBuffer, options: OnnxModelOptions = {}): Promise<OnnxModel> => {
    const model = await OnnxModel.load(network, { ...usual, ...options });
    models.push(model);
    return model;
  };
}
