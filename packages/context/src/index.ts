export type { PackOptions } from './archive/pack.ts';
export { packMemoryContext, type MemoryFile } from './archive/pack-memory.ts';
export { withoutSyntaxLine } from './dockerfile/directives.ts';
export type { DockerfileFeature } from './dockerfile/flags.ts';
export { readDockerfileFeatures } from './dockerfile/parse-dockerfile.ts';
export { readDockerfile, type DockerfileInfo, type ReadDockerfileOptions } from './dockerfile/read-dockerfile.ts';
export { withLineAfterFrom } from './dockerfile/with-line.ts';
export { findStage, stagesBuilt, type DockerfileSecret, type DockerfileStage } from './dockerfile/stages.ts';
export type {
  BuildContext,
  ContextDockerfile,
  ContextEntry,
  ContextTotals,
  FileStamp,
  PackedContext,
} from './entry.ts';
export { parseIgnoreFile, type IgnoreDecision, type IgnoreLevel, type IgnoreRules } from './ignore/ignore-rules.ts';
