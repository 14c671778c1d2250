export type { PackOptions } from '../archive/pack.ts';
export type {
  BuildContext,
  ContextDockerfile,
  ContextEntry,
  ContextTotals,
  FileStamp,
  PackedContext,
} from '../entry.ts';
export { readDirectoryTree, type DirectoryTree, type ReadDirectoryOptions } from './directory-tree.ts';
export { materializeContext, type MaterializeOptions } from './materialize-context.ts';
export { nodeGzip } from './node-gzip.ts';
export { openContext, type OpenContextOptions } from './open-context.ts';
export { digestContext, packContext } from './pack-context.ts';
export { ContentReader } from './read-content.ts';
