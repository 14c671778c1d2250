import { bytesOf } from './byte-string.ts';
import { encodeDevice, MODE_TYPES, XATTR_PREFIXES, XATTR_WHOLE_NAMES } from './erofs-format.ts';
import { FileCursor } from './file-bytes.ts';
import { pathOf, unsupported, type Inode } from './inventory.ts';
import { storedTime } from './source-date.ts';
import type { ByteString, FileNode, Metadata } from './tree.ts';

/** One request to debugfs, as bytes. */
export interface Ext4Command {
  readonly text: ByteString;
  /** Must be given on the command line: a script cannot hold line ends, or a line of this length. */
  readonly direct: boolean;
  /** The inode number that debugfs must report as allocated; undefined for requests that report none. */
  readonly allocates: number | undefined;
}

/**
 * Where file data and attribute values wait for debugfs: names in the folder that it starts in. A whole path would let the
 * image depend on where that folder is: what fits into a script does, and the superblock keeps how much each run wrote.
 */
export interface Staging {
  /** Later modification times are stored as this one. */
  readonly latestSeconds?: number | undefined;
  /** How many blocks a directory takes whose names are written apart from debugfs; undefined for all others. */
  indexedBlocks(directory: Inode): number | undefined;
  file(node: FileNode): Promise<string>;
  value(bytes: Uint8Array): Promise<string>;
}

export const ROOT_INODE = 2;
/** mkfs.ext4 makes lost+found the first inode that is not reserved, and debugfs takes the lowest free one. */
export const LOST_FOUND_INODE = 11;
export const LOST_FOUND = 'lost+found';
/** mkfs.ext4 gives lost+found 16 KiB; every other directory begins with one block. */
const LOST_FOUND_BLOCKS = 4;
/** What debugfs calls an inode until it is in its directory; it is none that mkfs.ext4 makes. */
const SPARE_NAME = '.0';
/** Flags of an inode: its blocks are in extents, and it is a directory with an index. */
const EXTENTS_AND_INDEX = 0x8_1000;

/** ext4's EXT4_LINK_MAX. */
const MOST_LINKS = 65_000;
/** What surely fits into the attribute block of an inode: 4,096 bytes without its header and some slack. */
const MOST_XATTR_BYTES = 4000;
/** debugfs reads lines of a script into 8,192 bytes. */
const MOST_LINE_BYTES = 8000;
/** debugfs's mknod takes numbers up to this. */
const MOST_MKNOD_NUMBER = 65_535;

/** A name as debugfs's parser takes it: in quotes, with inner quotes doubled. Nothing else is special in there. */
function quoted(name: ByteString): ByteString {
  return `"${name.replaceAll('"', '""')}"`;
}

function command(text: ByteString, allocates?: number): Ext4Command {
  return { text, allocates, direct: /[\r\n]/.test(text) || text.length > MOST_LINE_BYTES };
}

/** Inode numbers in the order of {@link ext4Commands}: the root, then 12, 13, … with lost+found apart. */
export function numberInodes(inodes: readonly Inode[]): ReadonlyMap<Inode, number> {
  const numbers = new Map<Inode, number>();
  let next = LOST_FOUND_INODE + 1;
  for (const inode of inodes) {
    if (inode.parent === undefined) numbers.set(inode, ROOT_INODE);
    else if (isLostFound(inode)) numbers.set(inode, LOST_FOUND_INODE);
    else numbers.set(inode, next++);
  }
  return numbers;
}

function isLostFound(inode: Inode): boolean {
  return inode.name === LOST_FOUND && inode.parent?.parent === undefined && inode.node.kind === 'directory';
}

/**
 * The debugfs requests that fill an empty ext4 filesystem, directory by directory. Only names and targets from the
 * tree are in them, quoted; inodes are named by number, and host files by the numbers that `staging` gives them.
 * @throws ROOTFS_UNSUPPORTED naming the path
 */
export async function* ext4Commands(
  inodes: readonly Inode[],
  staging: Staging,
): AsyncGenerator<Ext4Command, void, undefined> {
  const numbers = numberInodes(inodes);
  for (const directory of inodes) {
    if (directory.node.kind !== 'directory') continue;
    const number = numbers.get(directory)!;
    const blocks = staging.indexedBlocks(directory);
    if (blocks !== undefined) {
      yield* fillIndexed(directory, blocks, numbers, staging);
      continue;
    }
    const spareNames = spareNamesFor(directory);
    yield command(`cd <${number}>`);
    for (const { name, inode } of directory.children) {
      const target = `<${numbers.get(inode)!}>`;
      const isFirst = inode.parent === directory && inode.name === name;
      const viaSpare = !isFirst ? false : /[\r\n]/.test(name) || inode.node.kind === 'socket';
      const spare = viaSpare ? spareNames.next().value : undefined;
      if (isFirst && !isLostFound(inode)) {
        yield* create(inode, numbers.get(inode)!, `<${number}>`, spare ?? name, staging);
        if (inode.node.kind !== 'directory') yield* describe(inode, target, staging);
      }
      if (isFirst && spare === undefined) continue;
      // The link takes its file type from the inode's mode, which is set by now.
      yield /[\r\n]/.test(name)
        ? command(`ln ${target} ${quoted(`<${number}>/${name}`)}`)
        : command(`ln ${target} ${quoted(name)}`);
      if (spare !== undefined) yield command(`unlink ${quoted(spare)}`);
    }
    yield* describe(directory, `<${number}>`, staging);
  }
}

/**
 * Makes the inodes of a directory whose names come later, and gives it its blocks. Each inode has a name for the moment that
 * debugfs needs one, so that the directory stays as small as it is.
 */
async function* fillIndexed(
  directory: Inode,
  blocks: number,
  numbers: ReadonlyMap<Inode, number>,
  staging: Staging,
): AsyncGenerator<Ext4Command, void, undefined> {
  const number = numbers.get(directory)!;
  yield command(`cd <${number}>`);
  for (const { name, inode } of directory.children) {
    if (inode.parent !== directory || inode.name !== name || isLostFound(inode)) continue;
    yield* create(inode, numbers.get(inode)!, `<${number}>`, SPARE_NAME, staging);
    yield command(`unlink ${quoted(SPARE_NAME)}`);
    if (inode.node.kind !== 'directory') yield* describe(inode, `<${numbers.get(inode)!}>`, staging);
  }
  const target = `<${number}>`;
  for (let block = isLostFound(directory) ? LOST_FOUND_BLOCKS : 1; block < blocks; block++) {
    yield command(`expand_dir ${target}`);
  }
  yield command(`sif ${target} flags 0x${EXTENTS_AND_INDEX.toString(16)}`);
  yield* describe(directory, target, staging);
}

/** Names that no entry of the directory has. */
function* spareNamesFor(directory: Inode): Generator<ByteString, ByteString, undefined> {
  const taken = directory.node.kind === 'directory' ? directory.node.entries : new Map<ByteString, unknown>();
  for (let i = 0; ; i++) if (!taken.has(`.${i}`)) yield `.${i}`;
}

async function* create(
  inode: Inode,
  number: number,
  parent: string,
  name: ByteString,
  staging: Staging,
): AsyncGenerator<Ext4Command, void, undefined> {
  const { node } = inode;
  switch (node.kind) {
    case 'directory':
      yield command(`mkdir ${quoted(name)}`);
      break;
    case 'file':
      yield command(`write ${quoted(await staging.file(node))} ${quoted(name)}`, number);
      break;
    case 'symlink': {
      const relative = command(`symlink ${quoted(name)} ${quoted(node.target)}`);
      yield relative.direct ? command(`symlink ${quoted(`${parent}/${name}`)} ${quoted(node.target)}`) : relative;
      break;
    }
    case 'fifo':
    case 'socket':
      yield command(`mknod ${quoted(name)} p`, number);
      break;
    default: {
      const type = node.kind === 'block-device' ? 'b' : 'c';
      const minor = Math.min(node.minor, MOST_MKNOD_NUMBER);
      yield command(`mknod ${quoted(name)} ${type} ${node.major} ${minor}`, number);
    }
  }
}

async function* describe(inode: Inode, target: string, staging: Staging): AsyncGenerator<Ext4Command, void, undefined> {
  const { node, links } = inode;
  const { meta } = node;
  const field = (name: string, value: string | number) => command(`sif ${target} ${name} ${value}`);
  yield field('mode', `0${(MODE_TYPES[node.kind] | meta.mode).toString(8)}`);
  if (meta.uid !== 0) yield field('uid', meta.uid);
  if (meta.gid !== 0) yield field('gid', meta.gid);
  const { low, extra } = ext4Time(storedTime(meta, staging.latestSeconds));
  for (const name of ['atime', 'ctime', 'mtime', 'crtime']) {
    yield field(name, `@${low}`);
    // debugfs takes @low as a positive number and puts what is over 31 bits into the extra field.
    if (extra !== 0 || low >= 2 ** 31) yield field(`${name}_extra`, extra);
  }
  if (links > MOST_LINKS) {
    if (node.kind !== 'directory')
      throw unsupported(pathOf(inode), `has ${links} links, and ext4 ends at ${MOST_LINKS}`);
    // With dir_nlink, 1 stands for more than can be counted.
    yield field('links_count', 1);
  } else if (links > 1 && node.kind !== 'directory') yield field('links_count', links);
  if ((node.kind === 'block-device' || node.kind === 'character-device') && node.minor > MOST_MKNOD_NUMBER) {
    yield field('block[0]', 0);
    yield field('block[1]', encodeDevice(node.major, node.minor));
  }
  yield* describeXattrs(inode, target, staging);
}

async function* describeXattrs(
  inode: Inode,
  target: string,
  staging: Staging,
): AsyncGenerator<Ext4Command, void, undefined> {
  const { xattrs } = inode.node.meta;
  let bytes = 0;
  for (const { name, value } of xattrs) {
    const known = [...XATTR_PREFIXES].some(([index, prefix]) =>
      XATTR_WHOLE_NAMES.has(index) ? name === prefix : name.startsWith(prefix) && name.length > prefix.length,
    );
    if (!known || name.length > 255 || /[\0\r\n]/.test(name)) {
      throw unsupported(pathOf(inode), `has an extended attribute with the unsupported name ${JSON.stringify(name)}`);
    }
    bytes += 16 + name.length + value.length + 8;
    if (bytes > MOST_XATTR_BYTES) {
      throw unsupported(pathOf(inode), `has over ${MOST_XATTR_BYTES} bytes of extended attributes, too many for ext4`);
    }
    yield command(`ea_set -f ${quoted(await staging.value(value))} ${target} ${quoted(name)}`);
  }
}

/**
 * A time as ext4 keeps it: 32 bits of seconds, and nanoseconds above 2 bits that add 2^32 seconds each. Times before
 * 1901 and after 2446 become the first and last that fit, as they do when Linux writes them.
 */
export function ext4Time(meta: Pick<Metadata, 'mtimeSeconds' | 'mtimeNanoseconds'>): { low: number; extra: number } {
  const first = -(2 ** 31);
  const last = 2 ** 34 - 2 ** 31 - 1;
  const seconds = Math.min(Math.max(meta.mtimeSeconds, first), last);
  const nanoseconds = seconds === meta.mtimeSeconds ? meta.mtimeNanoseconds : 0;
  const signed = seconds | 0;
  return { low: signed >>> 0, extra: nanoseconds * 4 + (seconds - signed) / 2 ** 32 };
}

/** Writes a file's extents to `write(bytes, position)` through one buffer. */
export function copyExtents(
  node: FileNode,
  buffer: Uint8Array,
  write: (bytes: Uint8Array, position: number) => void,
): void {
  const cursor = new FileCursor(node);
  for (const { fileOffset, lengthBytes } of node.extents) {
    for (let done = 0; done < lengthBytes;) {
      const part = buffer.subarray(0, Math.min(buffer.length, lengthBytes - done));
      cursor.read(part, fileOffset + done);
      write(part, fileOffset + done);
      done += part.length;
    }
  }
}

export function scriptBytes(commands: readonly Ext4Command[]): Uint8Array {
  return bytesOf(commands.map(({ text }) => `${text}\n`).join(''));
}
