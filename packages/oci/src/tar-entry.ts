/**
 * Bytes held as a string with one character per byte (`Buffer.toString('latin1')`): names in archives are
 * bytes, and nothing here decodes or normalises them.
 */
export type ByteString = string;

export type TarEntryType = 'file' | 'hardlink' | 'symlink' | 'character-device' | 'block-device' | 'directory' | 'fifo';

/** A run of data in a sparse file; whatever no run covers is a hole. */
export interface SparseRun {
  /** Where the run lies in the file, in bytes. */
  readonly fileOffset: number;
  readonly lengthBytes: number;
}

export interface TarXattr {
  /** Full name, for example `security.capability`. */
  readonly name: ByteString;
  readonly value: Uint8Array;
}

/** One entry of a tar archive, as it stands there: nothing is resolved, cleaned or refused for its meaning. */
export interface TarEntry {
  /** The name as in the archive, with any leading `/` or `./` and trailing `/`. Never empty, never with a NUL. */
  readonly path: ByteString;
  readonly type: TarEntryType;
  /** Permission bits with setuid, setgid and sticky: 0 to 0o7777. */
  readonly mode: number;
  /** Non-negative safe integers; what a filesystem can hold is for the reader of the entry to check. */
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  /** 0 to 999,999,999, also before 1970: the time is seconds plus nanoseconds. */
  readonly mtimeNanoseconds: number;
  /** Target of a hard link or symlink; empty for everything else. */
  readonly linkPath: ByteString;
  readonly devMajor: number;
  readonly devMinor: number;
  /** Bytes of the file, holes included; 0 for anything but a file. */
  readonly sizeBytes: number;
  /** In byte order of the names, each name once. */
  readonly xattrs: readonly TarXattr[];
  /** Where the entry's header begins, in bytes from the start of the archive. */
  readonly headerOffset: number;
  /** Where its data begins, in bytes from the start of the archive. */
  readonly dataOffset: number;
  /** Bytes of data in the archive: `sizeBytes`, or the sum of the sparse runs. */
  readonly storedBytes: number;
  /** The runs whose bytes follow each other from `dataOffset`; undefined when the file is not sparse. */
  readonly sparse: readonly SparseRun[] | undefined;
}

/** Bounds on what one entry may make the reader hold. */
export interface TarLimits {
  /** Most bytes of PAX records, long names and their headers before one entry; default 1 MiB. */
  readonly metadataBytes: number;
  /** Most runs of one sparse file; default 65,536. */
  readonly sparseRuns: number;
}

export const DEFAULT_TAR_LIMITS: TarLimits = { metadataBytes: 1024 * 1024, sparseRuns: 65_536 };
