export { devices, getNumThreads, setNumThreads, type DeviceInfo } from './devices';
export { AbortError, ScoreSdeError, type ErrorCode } from './errors';
export type { StepSize } from './native';
export type { EngineName, PhiloxState } from './random/engine';
export { Generator, manualSeed, type GeneratorOptions, type RandnOptions } from './random/generator';
export type { SchedulerConfig } from './scheduler/config';
export type { PerSample } from './tensor/numbers';
export type { SigmaOptions } from './scheduler/schedule';
export {
  ScoreSdeVeScheduler,
  type SchedulerOutput,
  type SdeVeOutput,
  type StepCorrectResult,
  type StepPredResult,
} from './scheduler/scheduler';
export type { NoiseOptions, StepCorrectOptions, StepPredOptions } from './scheduler/steps';
export type { StateType } from './tensor/operand';
export { Tensor, type TensorData, type TensorLike, type TensorOptions, type TensorType } from './tensor/tensor';
