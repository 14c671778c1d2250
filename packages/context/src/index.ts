export type { PackOptions } from './archive/pack.ts';
export { packMemoryContext, type MemoryFile } from './archive/pack-memory.ts';
export {
  readDockerfile,
  type DockerfileInfo,
  type DockerfileRequirements,
  type DockerfileStage,
  type ReadDockerfileOptions,
} from './dockerfile/read-dockerfile.ts';
export type {
  BuildContext,
  ContextDockerfile,
  ContextEntry,
  ContextTotals,
  FileStamp,
  PackedContext,
} from './entry.ts';
export { parseIgnoreFile, type IgnoreDecision, type IgnoreLevel, type IgnoreRules } from './ignore/ignore-rules.ts';
