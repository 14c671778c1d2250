export { compareBytes, concatBytes, equalBytes, fromHex, releaseBytes, toHex } from './bytes.ts';
export { canonicalJson } from './canonical-json.ts';
export {
  ERROR_CODES,
  exitStatusOf,
  familyOf,
  httpStatusOf,
  isErrorCode,
  type ErrorCode,
  type ErrorFamily,
} from './error-codes.ts';
export { DecantError, errnoOf, isDecantError, maskSecrets, toDecantError, type DecantErrorOptions } from './errors.ts';
export { stage, type OnEvent, type ProgressEvent, type Stage } from './events.ts';
export { imageEnvironment } from './image-environment.ts';
export {
  formatImageName,
  imageIdDigits,
  isChunkId,
  isImageId,
  isStreamingImageId,
  parseChunkId,
  parseImageId,
  parseImageName,
  parseNamespace,
  quote,
  slug,
  type BuildId,
  type ChunkId,
  type ImageId,
  type ImageName,
  type Namespace,
} from './ids.ts';
export type { ChunkEncoding, ChunkFrame, ChunkIndex, ChunkLocation, ChunkSource } from './ports/chunks.ts';
export type { Fetch } from './ports/fetch.ts';
export type { ClaimedJob, JobQueue } from './ports/job-queue.ts';
export type {
  ByteRange,
  CallOptions,
  ObjectBody,
  ObjectInfo,
  ObjectStore,
  UploadedPart,
} from './ports/object-store.ts';
export { Scope } from './scope.ts';
export { formatBytes, formatDuration, GIB, KIB, MIB, PAGE_BYTES, parseBytes, roundUp } from './units.ts';
export { retry, Semaphore, sleep, untilAborted, type RetryOptions } from './wait.ts';
export * from './wire/index.ts';
