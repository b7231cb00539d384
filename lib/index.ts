/// <reference lib="esnext.disposable" preserve="true" />
// The first module to be loaded: it says so where a bundler has inlined the package.
import './package';
export { devices, getNumThreads, setNumThreads, type DeviceInfo } from './devices';
export { AbortError, ScoreSdeError, type ErrorCode } from './errors';
export { toPng, type PngOptions } from './image/png';
export {
  fromDenoiser,
  fromNetwork,
  fromNoisePrediction,
  fromVPrediction,
  type NetworkModel,
} from './models/combinators';
export type { ModelContext, ModelInput, ModelInputs, ScoreModel } from './models/model';
export type { KindCheck } from './models/network/check';
export type { Conditioning } from './models/network/conditioning';
export type { NetworkKind, Prediction, Preconditioning } from './models/network/kind';
export { OnnxModel, type RunContext } from './models/onnx/model';
export type { OnnxModelOptions } from './models/onnx/options';
export type { NetworkOptions } from './models/network/contract';
export type { Port } from './models/network/port';
export type { Exactness } from './models/onnx/probe';
export type { LoadProgress } from './models/onnx/weights';
export { fromInferenceSession, type SessionLike, type SessionModel, type SessionModelOptions } from './models/session';
export type { StepSize } from './native/abi';
export type { GeneratorKind, PhiloxState } from './random/kind';
/** The name that {@link GeneratorKind} had before. */
export type { GeneratorKind as EngineName } from './random/kind';
export { Generator, manualSeed, type GeneratorOptions, type RandnOptions } from './random/generator';
export type { Bytes, Signal, SignalLike } from './platform';
export type { SchedulerConfig } from './scheduler/config';
export type { PerSample } from './tensor/arguments';
export type { SigmaOptions } from './scheduler/schedule';
export type { NoiseSampler } from './sampling/lane';
export type { Estimate } from './sampling/estimate';
export { ScoreSdeVePipeline, type PipelineOptions, type RunOptions } from './sampling/pipeline';
export type { ResumeOptions, SamplingProgress, StepsOptions } from './sampling/plan';
export { SamplingResult } from './sampling/result';
export type { SamplingRun } from './sampling/run';
export type { SamplingStep } from './sampling/sampling-step';
export {
  levelsFrom,
  levelsOfGrid,
  levelsOfSchedule,
  preset,
  solverList,
  solvers,
  type Churn,
  type CorrectorName,
  type DpmAdaptiveOptions,
  type Dpmpp2mSdeOptions,
  type Dpmpp3mSdeOptions,
  type ErSdeOptions,
  type EulerAncestralOptions,
  type Grid,
  type GridOptions,
  type HeunOptions,
  type Levels,
  type LinearUpdate,
  type MultistepOptions,
  type PredictorCorrectorOptions,
  type PredictorName,
  type Preset,
  type Solver,
  type SolverEntry,
  type SolverName,
  type SolverOptions,
  type Stage,
  type UnipcOptions,
  type Update,
} from './solvers';
export {
  ScoreSdeVeScheduler,
  type AddNoiseOptions,
  type SchedulerOutput,
  type SdeVeOutput,
  type StepCorrectResult,
  type StepPredResult,
} from './scheduler/scheduler';
export type { NoiseOptions, StepOptions } from './scheduler/steps';
export { emptyCache, memoryUsage, signalStream, streamOf, waitForStream } from './tensor/device';
export type { CudaArrayInterface, IpcHandle, PointerOptions, StreamOptions } from './tensor/sharing';
export type { StateType } from './tensor/operand';
export type { TensorData, TensorType } from './tensor/data';
export { Tensor, type TensorLike, type TensorOptions } from './tensor/tensor';
