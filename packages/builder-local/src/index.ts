export { buildError } from './build-error.ts';
export type { BuildahFacts, BuildahOptions } from './buildah.ts';
export { buildahDriver } from './buildah.ts';
export { checkRequest } from './check-request.ts';
export { chooseBuilder, type BuilderWants, type ChosenBuilder } from './choose.ts';
export { detectBuilders, probeBuildah, probeDocker, type DetectedBuilder, type DetectOptions } from './detect.ts';
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
  CallOptions,
  ExportedImage,
  NetworkMode,
} from './driver.ts';
export { BuildahReader } from './output/buildah.ts';
