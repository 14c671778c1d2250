/**
 * The merged root filesystem of an image, in memory: names and metadata only, file data by reference.
 * Names, link targets and xattr names are bytes: they are held as "binary strings", one character per byte
 * (`Buffer.toString('latin1')`), so that `<` orders them bytewise and nothing is ever normalised.
 */
export type ByteString = string;

export interface Xattr {
  /** Full name, for example `security.capability`. */
  readonly name: ByteString;
  readonly value: Uint8Array;
}

export interface Metadata {
  /** Permission bits with setuid, setgid and sticky: 0 to 0o7777. */
  readonly mode: number;
  /** 0 to 2^32 - 2. */
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970, may be negative; a safe integer. */
  readonly mtimeSeconds: number;
  /** 0 to 999,999,999. */
  readonly mtimeNanoseconds: number;
  /** In byte order of the names, each name once. */
  readonly xattrs: readonly Xattr[];
}

/** Where decompressed layer bytes lie; positions are bytes from its start. */
export interface BlobReader {
  /** Fills `target` from `position`; returns the bytes read, fewer only at the end. */
  readSync(target: Uint8Array, position: number): number;
}

/** A run of file data; whatever no extent covers is a hole. */
export interface Extent {
  readonly fileOffset: number;
  readonly lengthBytes: number;
  readonly blob: BlobReader;
  readonly blobOffset: number;
}

/** The bytes of a file. */
export interface FileContent {
  readonly sizeBytes: number;
  /** Ascending, without overlap, inside the size. */
  readonly extents: readonly Extent[];
}

export interface FileNode extends FileContent {
  readonly kind: 'file';
  readonly meta: Metadata;
}

export interface DirectoryNode {
  readonly kind: 'directory';
  readonly meta: Metadata;
  /** By name; the same non-directory node under several names is a hard link. */
  readonly entries: ReadonlyMap<ByteString, TreeNode>;
}

export interface SymlinkNode {
  readonly kind: 'symlink';
  readonly meta: Metadata;
  readonly target: ByteString;
}

export interface DeviceNode {
  readonly kind: 'character-device' | 'block-device';
  readonly meta: Metadata;
  readonly major: number;
  readonly minor: number;
}

export interface SpecialNode {
  readonly kind: 'fifo' | 'socket';
  readonly meta: Metadata;
}

export type TreeNode = FileNode | DirectoryNode | SymlinkNode | DeviceNode | SpecialNode;

/** The names of one directory in byte order. */
export function sortedEntries(directory: DirectoryNode): [ByteString, TreeNode][] {
  return [...directory.entries].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
}
