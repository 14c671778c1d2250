export { buildError } from './build-error.ts';
export { checkRequest } from './check-request.ts';
export { chooseBuilder, type BuilderWants, type ChosenBuilder } from './choose.ts';
export { probeBuildah, probePodman } from './detect-storage.ts';
export { detectBuilders, probeDocker, type DetectedBuilder, type DetectOptions } from './detect.ts';
export { dockerDriver, type DockerFacts, type DockerOptions } from './docker.ts';
export type {
  Architecture,
  BuilderCapabilities,
  BuilderDriver,
  BuilderName,
  BuildEvent,
  BuildRequest,
  BuildResult,
  BuildSecret,
  BuildSource,
  CacheMode,
  CallOptions,
  ExportedImage,
  ExportedLayout,
  NetworkMode,
  OutputForm,
  RegistryLogin,
  RegistryLogins,
} from './driver.ts';
export { BuildahReader } from './output/buildah.ts';
export { storageDriver } from './storage-driver.ts';
export { BUILDAH, PODMAN, type StorageDialect, type StorageFacts, type StorageOptions } from './storage-engine.ts';
export {
  openEngine,
  type BuildImageOptions,
  type ContainerEngine,
  type EngineOptions,
  type ExecOptions,
  type PushOptions,
} from './engine/engine.ts';
export { engineTarget } from './engine-arguments.ts';
export { engineMissing } from './engine/engine-missing.ts';
export { nameCandidates, slugOf } from './engine/names.ts';
