export type { Admission, AdmittedImage, IngestContext, WrittenPack } from './admission.ts';
export { findDamage } from './find-damage.ts';
export { ingestArchive, type ArchiveCompletion } from './ingest-archive.ts';
export { ingestStreaming, type StreamingCompletion } from './ingest-streaming.ts';
export {
  archiveKey,
  configKey,
  locatorKey,
  manifestKey,
  namespacePrefix,
  packKey,
  recordKey,
  isStagingKey,
  stagingPrefix,
} from './object-keys.ts';
export { relocate, type RelocateContext } from './relocate.ts';
