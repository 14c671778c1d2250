/** What of a file on disk shows that it was changed: compared before and after its bytes are read. */
export interface FileStamp {
  readonly device: bigint;
  readonly inode: bigint;
  /** Nanoseconds since 1970. */
  readonly modifiedNs: bigint;
}

/** One thing of a build context, named by its path below the context's root, with `/` and without a leading one. */
export interface ContextEntry {
  /** The path as text; bytes that are not UTF-8 are shown as U+FFFD. */
  readonly path: string;
  /** The exact bytes of the path, only when they are not UTF-8. */
  readonly pathBytes?: Uint8Array;
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink';
  /** Bytes of content; 0 for everything but files. */
  readonly sizeBytes: number;
  /** Permission bits with set-uid, set-gid and sticky: 0 to 0o7777. */
  readonly mode: number;
  /** Where a symbolic link points, as it was written, or the path of the earlier entry that a hard link is another name of. */
  readonly linkTarget?: string;
  /** The exact bytes of the link target, only when they are not UTF-8. */
  readonly linkTargetBytes?: Uint8Array;
  /** Of files read from disk. */
  readonly stamp?: FileStamp;
}

export interface ContextTotals {
  /** Entries that are not directories. */
  readonly files: number;
  /** Content of all files; a hard-linked file counts once. */
  readonly bytes: number;
}

/** A build context of a directory: what travels to a builder, and the Dockerfile apart from it. */
export interface BuildContext {
  /** Absolute path of the context's root. */
  readonly directory: string;
  readonly dockerfile: ContextDockerfile;
  /** The ignore file in effect, as shown to people, or null. */
  readonly ignoreFile: string | null;
  /** Sorted by the bytes of their paths: a directory comes before what is in it. */
  readonly entries: readonly ContextEntry[];
  readonly totals: ContextTotals;
  /** The ten largest files, largest first. */
  readonly largest: readonly ContextEntry[];
  /** Sentences for people. */
  readonly warnings: readonly string[];
}

export interface ContextDockerfile {
  /** Its path among the entries, or null when it is not one of them: it lies outside the context or is ignored. */
  readonly path: string | null;
  readonly absolutePath: string;
  /** Relative to the context when inside of it, else absolute. */
  readonly displayPath: string;
  readonly bytes: Uint8Array;
}

/** An archive while it is made. */
export interface PackedContext {
  /** The bytes, to be read once. */
  readonly stream: AsyncIterable<Uint8Array>;
  /**
   * SHA-256 of the uncompressed archive in lowercase hexadecimal; known when the stream has been read to its end,
   * rejected with the stream's error when that fails or is left early.
   */
  readonly digest: Promise<string>;
  /** Bytes of the uncompressed archive, known beforehand. */
  readonly tarBytes: number;
}
