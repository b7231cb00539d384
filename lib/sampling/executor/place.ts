import type { ScoreModel } from '../../models/model';

/** Whether a model takes and gives tensors on that device. */
export function takesDevice(model: ScoreModel, device: string): boolean {
  return model.devices?.some((name) => name === device || name === device.replace(/:\d+$/, '')) ?? false;
}
