/**
 * Every code a decant error can carry, with what it means. The family decides the exit status of the
 * command line (see {@link exitStatusOf}) and, where no contract fixes another, the HTTP status.
 */
export type ErrorFamily =
  | 'usage'
  | 'auth'
  | 'not-found'
  | 'conflict'
  | 'build'
  | 'integrity'
  | 'limit'
  | 'unavailable'
  | 'internal';

/** `advice` is the hint of an error whose author knows nothing better. */
const code = <F extends ErrorFamily>(family: F, meaning: string, advice?: string) =>
  ({ family, meaning, advice }) as const;

export const ERROR_CODES = {
  // core
  INTERNAL: code('internal', 'Something that should not happen did; a bug.'),
  USAGE: code('usage', 'The arguments of a command or call are wrong.'),
  CONFIG_INVALID: code('usage', 'A flag, environment variable or configuration file has an unusable value.'),
  TIMEOUT: code('unavailable', 'A wait reached its bound.'),
  LIMIT_EXCEEDED: code('limit', 'A configured limit was reached.'),
  DISK_FULL: code('unavailable', 'No space is left where decant had to write.'),
  PROCESS_FAILED: code('internal', 'A program decant started ended with an error.'),
  PROCESS_MISSING: code('unavailable', 'A program decant needs is not installed.'),

  // names and ids
  NAME_INVALID: code('usage', 'A name or tag does not follow the rules for names.'),
  ID_INVALID: code('usage', 'An id is not of a known form.'),

  // cas
  CAS_CHUNK_MISMATCH: code('integrity', 'A chunk does not hash to its id or has another length.'),
  CAS_CHUNK_MISSING: code('integrity', 'A chunk is not where it should be.'),
  CAS_MANIFEST_INVALID: code('integrity', 'The bytes are not a valid manifest.'),
  CAS_PACK_INVALID: code('integrity', 'The bytes are not a valid pack.'),
  CAS_LOCATOR_INVALID: code('integrity', 'The bytes are not a valid locator.'),
  CAS_ZSTD_INVALID: code('integrity', 'A zstd frame is broken or larger than declared.'),
  CAS_FILE_UNREADABLE: code('usage', 'A file of an image or a store of chunks is missing or cannot be read.'),
  CAS_FILE_CHANGED: code('usage', 'A file changed while chunks were made of it.'),
  CAS_WORKER_FAILED: code('internal', 'A worker thread ended before its work was done.'),

  // context
  CONTEXT_UNREADABLE: code('usage', 'The build context or a file in it cannot be read.'),
  CONTEXT_CHANGED: code('usage', 'A file changed while it was being read into the context.'),
  CONTEXT_ENTRY_UNSUPPORTED: code('usage', 'The context has an entry that cannot be packed.'),
  IGNORE_FILE_INVALID: code('usage', 'The ignore file has a pattern that cannot be used.'),
  DOCKERFILE_UNREADABLE: code('usage', 'The Dockerfile is missing or cannot be read.'),
  DOCKERFILE_INVALID: code('usage', 'The Dockerfile cannot be understood.'),
  DOCKERFILE_UNSUPPORTED: code('usage', 'The Dockerfile needs something the chosen builder does not have.'),

  // transport
  HTTP_UNREACHABLE: code('unavailable', 'The server could not be reached or cut the connection.'),
  HTTP_STATUS: code('unavailable', 'The server answered with an error.'),
  HTTP_BODY_INVALID: code('unavailable', 'The server answered with something unexpected.'),
  UNAUTHORIZED: code('auth', 'No key was given, or it is not valid.'),
  FORBIDDEN: code('auth', 'The key does not allow this.'),
  NOT_FOUND: code('not-found', 'There is nothing of that name or id.'),
  CONFLICT: code('conflict', 'The thing has changed or exists already.'),

  // jail
  JAIL_UNAVAILABLE: code('unavailable', 'This machine cannot run the sandbox.'),
  JAIL_FAILED: code('internal', 'The sandbox could not be set up.'),

  // bottle
  BOTTLE_MANIFEST_UNTRUSTED: code('auth', 'A manifest does not lie where only the operator can write.'),
  BOTTLE_PROBE_FAILED: code('integrity', 'The fence of a bottle did not hold, or an allowed route did not work.'),
  BOTTLE_ENDED: code('conflict', 'The bottle has ended.'),
  BOTTLE_PROTOCOL: code('internal', 'What came over the control socket of a bottle is not what it should be.'),

  // oci
  OCI_SOURCE_INVALID: code(
    'usage',
    'The image source cannot be read or is not what it should be.',
    'Check the path, that it can be read, and that the source is of the kind that was named.',
  ),
  OCI_INVALID: code(
    'integrity',
    'An image document breaks the OCI or Docker format.',
    'The image is incomplete or was not made as the format says: get it again, or make it anew.',
  ),
  OCI_DIGEST_MISMATCH: code(
    'integrity',
    'A blob does not have the digest or size that was declared.',
    'The image is damaged or was changed; get it again.',
  ),
  OCI_UNSUPPORTED: code('usage', 'The image needs something decant does not support.'),
  OCI_PLATFORM_MISSING: code('not-found', 'The image has nothing for the platform asked for.'),
  LAYER_INVALID: code(
    'integrity',
    'A layer archive is broken or hostile.',
    'Get the archive again; if it is the same then, make it anew with the tool that built it.',
  ),

  // rootfs
  ROOTFS_INVALID: code('integrity', 'A filesystem image does not check.'),
  ROOTFS_UNSUPPORTED: code(
    'usage',
    'The tree holds something the filesystem cannot express.',
    'Change that entry of the image or leave it out.',
  ),
  ROOTFS_NO_SPACE: code('usage', 'The tree does not fit into the size asked for.'),

  // dataplane
  OBJECT_NOT_FOUND: code('not-found', 'There is no object with that key.'),
  OBJECT_KEY_INVALID: code('usage', 'An object key is malformed.'),
  SIGN_PATH_FORBIDDEN: code('auth', 'The path to be signed does not belong to the caller.'),
  SIGN_URL_EXPIRED: code('auth', 'A signed URL is past its time.'),
  SIGN_URL_INVALID: code('auth', 'A signed URL does not carry a valid signature for this request.'),
  UPLOAD_URI_MISMATCH: code('integrity', 'The signed URI and the builder disagree about where an artifact goes.'),
  UPLOAD_INVALID: code('usage', 'A multipart upload is unknown, incomplete or has a wrong part.'),

  // builders
  BUILD_ENGINE_MISSING: code('unavailable', 'No build engine answers on this machine.'),
  BUILD_STEP_FAILED: code('build', 'A step of the Dockerfile failed.'),
  BUILD_FAILED: code('build', 'The build failed.'),
  BUILD_BASE_UNAVAILABLE: code('build', 'A base image could not be had.'),
  BUILD_PLATFORM_UNSUPPORTED: code('usage', 'The engine cannot build for that platform.'),
  BUILD_CANCELLED: code('build', 'The build was cancelled.'),
  BUILD_LOST: code('build', 'What ran the build was lost, and it was not started again.'),
  BUILD_QUEUE_EXPIRED: code('unavailable', 'The build waited in the queue for too long.'),
  BUILD_QUEUE_FULL: code('unavailable', 'Too many builds wait already.'),
  BUILD_ISOLATION_UNAVAILABLE: code('unavailable', 'This machine cannot confine builds that it must not trust.'),
  BUILD_CONTEXT_INVALID: code('usage', 'The build context that was sent is no archive that can be used.'),
  CONTEXT_FILE_MISMATCH: code('integrity', 'A file of a build context does not have the digest it was sent under.'),
  BUILD_CONTEXT_BYTES: code('limit', 'The build context has more bytes than the service takes.'),
  BUILD_CONTEXT_FILES: code('limit', 'The build context has more entries than the service takes.'),
  BUILD_UNPACKED_BYTES: code('limit', 'The build context has more bytes when unpacked than the service takes.'),
  BUILD_IMAGE_BYTES: code('build', 'The image has more bytes than the service takes.'),
  BUILD_LOG_BYTES: code('build', 'The build wrote more output than the service keeps.'),
  BUILD_OUT_OF_MEMORY: code('build', 'The build needed more memory than it may have.'),
  BUILD_OUT_OF_DISK: code('build', 'The build needed more disk than it may have.'),
  BUILD_PROCESSES: code('build', 'The build started more processes than it may.'),
  BUILD_CPU_TIME: code('build', 'The build used more processor time than it may have.'),
  BUILD_WALL_TIME: code('build', 'The build took longer than it may.'),
  BUILD_SILENT: code('build', 'The build wrote nothing for longer than it may.'),

  // ingest
  INGEST_REFUSED: code('integrity', 'What was uploaded was not admitted.'),
  INGEST_CHUNK_UNREACHABLE: code(
    'integrity',
    'A manifest names a chunk that was neither uploaded nor is readable by the namespace.',
  ),
  INGEST_STATE: code('conflict', 'The build is not in a state that allows this.'),

  // stream
  NBD_PROTOCOL: code('internal', 'An NBD client broke the protocol.'),
  STREAM_READ_FAILED: code('unavailable', 'A block could not be fetched and verified.'),

  // bottle
  AUDIT_INVALID: code('integrity', 'An audit log was changed, or lines of it are missing.'),
} as const satisfies Record<string, { family: ErrorFamily; meaning: string }>;

export type ErrorCode = keyof typeof ERROR_CODES;

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERROR_CODES, value);
}

/** What is unavailable until a person does something: an engine, a program or a kernel's feature that is not there. */
const UNTIL_MENDED: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'BUILD_ENGINE_MISSING',
  'BUILD_ISOLATION_UNAVAILABLE',
  'PROCESS_MISSING',
]);

/** Whether the same call may succeed a little later when nobody does anything. */
export function mayPass(code: ErrorCode): boolean {
  return familyOf(code) === 'unavailable' && !UNTIL_MENDED.has(code);
}

/** What can be done about errors with this code in general; undefined when that depends on the error. */
export function adviceOf(code: ErrorCode): string | undefined {
  return ERROR_CODES[code].advice;
}

export function familyOf(code: ErrorCode): ErrorFamily {
  return ERROR_CODES[code].family;
}

const EXIT_STATUS: Record<ErrorFamily, number> = {
  usage: 2,
  auth: 3,
  'not-found': 4,
  build: 5,
  integrity: 6,
  unavailable: 7,
  conflict: 1,
  limit: 1,
  internal: 1,
};

/** Exit status of a command that ended with this code: 2 usage, 3 auth, 4 not found, 5 build, 6 integrity, 7 unavailable, else 1. */
export function exitStatusOf(code: ErrorCode): number {
  return EXIT_STATUS[familyOf(code)];
}

const HTTP_STATUS: Record<ErrorFamily, number> = {
  usage: 400,
  auth: 403,
  'not-found': 404,
  conflict: 409,
  build: 422,
  integrity: 422,
  limit: 413,
  unavailable: 503,
  internal: 500,
};

/** HTTP status for a problem document with this code; UNAUTHORIZED is 401, other auth codes 403. */
export function httpStatusOf(code: ErrorCode): number {
  return code === 'UNAUTHORIZED' ? 401 : HTTP_STATUS[familyOf(code)];
}
