import { GIB, MIB } from '@decant/core';

/** Bounds on builds; each has an error code of its own. */
export interface BuilderLimits {
  /** Most bytes of a context as it is sent (BUILD_CONTEXT_BYTES). */
  readonly contextBytes: number;
  /** Most entries of a context (BUILD_CONTEXT_FILES). */
  readonly contextFiles: number;
  /** Most bytes of a context's archive once decompressed (BUILD_UNPACKED_BYTES). */
  readonly unpackedBytes: number;
  /** Most bytes of the image as an archive (BUILD_IMAGE_BYTES). */
  readonly imageBytes: number;
  /** Most bytes of output that are kept (BUILD_LOG_BYTES). */
  readonly logBytes: number;
  /** Memory of a confined build with its page cache, in bytes (BUILD_OUT_OF_MEMORY). */
  readonly memoryBytes: number;
  /** Disk of a confined build: context, layers and the cache of its cache key together (BUILD_OUT_OF_DISK). */
  readonly diskBytes: number;
  /** Processors' worth of time a confined build gets. */
  readonly cpus: number;
  /** Most milliseconds of processor time of a confined build (BUILD_CPU_TIME). */
  readonly cpuMs: number;
  /** Most processes of a confined build (BUILD_PROCESSES). */
  readonly processes: number;
  /** Most milliseconds a build runs (BUILD_WALL_TIME). */
  readonly wallMs: number;
  /** Most milliseconds between two lines of output (BUILD_SILENT). */
  readonly silenceMs: number;
  /** Most milliseconds a build waits (BUILD_QUEUE_EXPIRED). */
  readonly queueMs: number;
  /** Most builds of a namespace that wait (BUILD_QUEUE_FULL). */
  readonly queued: number;
  /** Most builds that run at a time, of everybody and of one namespace. */
  readonly running: number;
  readonly runningPerNamespace: number;
  /** Bytes of layer caches kept for confined builds, as allocated on disk. */
  readonly cacheBytes: number;
  /** Milliseconds that builds and their logs are kept after their end. */
  readonly keepMs: number;
}

const MINUTE_MS = 60 * 1000;
const HOUR_MS = 60 * MINUTE_MS;

export const DEFAULT_BUILDER_LIMITS: BuilderLimits = {
  contextBytes: 8 * GIB,
  contextFiles: 200_000,
  unpackedBytes: 16 * GIB,
  imageBytes: 16 * GIB,
  logBytes: 16 * MIB,
  memoryBytes: 4 * GIB,
  diskBytes: 32 * GIB,
  cpus: 2,
  cpuMs: 4 * HOUR_MS,
  processes: 4096,
  wallMs: 2 * HOUR_MS,
  silenceMs: 30 * MINUTE_MS,
  queueMs: 6 * HOUR_MS,
  queued: 100,
  running: 2,
  runningPerNamespace: 2,
  cacheBytes: 40 * GIB,
  keepMs: 30 * 24 * HOUR_MS,
};
