export type { ReadOptions } from './blob-source.ts';
export { openDockerArchive } from './docker-archive.ts';
export type { HistoryEntry, OciImage, OpenImageOptions } from './image.ts';
export type { LayerBlob } from './layer.ts';
export { openOciLayout } from './layout.ts';
export { DEFAULT_OCI_LIMITS, type OciLimits } from './limits.ts';
export { formatPlatform, hostPlatform, type Platform } from './platform.ts';
export {
  DEFAULT_TAR_LIMITS,
  type ByteString,
  type SparseRun,
  type TarEntry,
  type TarEntryType,
  type TarLimits,
  type TarXattr,
} from './tar-entry.ts';
export { showBytes } from './tar-errors.ts';
export { readTar, type ReadTarOptions } from './tar-reader.ts';
