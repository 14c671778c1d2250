export type { ReadOptions } from './blob-source.ts';
export { openArchiveTree, openDockerArchive, type OpenArchiveOptions } from './docker-archive.ts';
export { dockerCredentials, type CredentialLookup, type RegistryCredentials } from './docker-config.ts';
export type { HistoryEntry, ImageDocument, OciImage, OpenImageOptions } from './image.ts';
export type { LayerBlob } from './layer.ts';
export type { ImageTree } from './image-tree.ts';
export { openOciLayout, openOciLayoutTree } from './layout.ts';
export { DEFAULT_OCI_LIMITS, limitError, type OciLimits } from './limits.ts';
export { formatPlatform, hostPlatform, type Platform } from './platform.ts';
export { readPlainArchive } from './plain-archive.ts';
export { formatReference, parseReference, type ImageReference } from './reference.ts';
export { containersMirrors, type MirrorLookup } from './registries-conf.ts';
export {
  openRegistryImage,
  openRegistryTree,
  type OpenRegistryImageOptions,
  type RegistryOptions,
} from './registry/pull.ts';
export { pushImage, type PushedImage, type PushImageOptions } from './registry/push.ts';
export {
  createRegistry,
  createRegistryHandler,
  DEFAULT_REGISTRY_LIMITS,
  type Registry,
  type RegistryHandler,
  type RegistryHandlerOptions,
  type RegistryLimits,
  type RegistryVerdict,
} from './registry-server/handler.ts';
export type { CollectRegistryOptions, RegistryCollection } from './registry-server/collect.ts';
export type { RegistryAction } from './registry-server/route.ts';
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
export { writeOciLayout, type WriteLayoutOptions } from './write-layout.ts';
