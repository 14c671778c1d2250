export { gzip } from './archive/gzip.ts';
export { packEntries, portableSha256, type Compress, type PackOptions, type Sha256 } from './archive/pack.ts';
export { memoryEntries, packMemoryContext, type MemoryEntries, type MemoryFile } from './archive/pack-memory.ts';
export type { ReadContent } from './archive/tar-stream.ts';
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
