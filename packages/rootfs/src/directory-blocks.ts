import { BLOCK_BYTES, DIRENT_BYTES } from './erofs-format.ts';
import type { ByteString } from './tree.ts';

/** Bytes a directory with these names takes, and how many names each of its blocks holds. */
export interface DirectoryShape {
  readonly sizeBytes: number;
  readonly namesPerBlock: readonly number[];
}

/** Packs names, sorted and with `.` and `..`, into blocks from first to last. */
export function shapeDirectory(names: readonly ByteString[]): DirectoryShape {
  const namesPerBlock: number[] = [];
  let used = 0;
  let count = 0;
  for (const name of names) {
    const needed = DIRENT_BYTES + name.length;
    if (used + needed > BLOCK_BYTES) {
      namesPerBlock.push(count);
      used = 0;
      count = 0;
    }
    used += needed;
    count++;
  }
  namesPerBlock.push(count);
  return { sizeBytes: (namesPerBlock.length - 1) * BLOCK_BYTES + used, namesPerBlock };
}

export interface DirectoryEntry {
  readonly name: ByteString;
  readonly nid: number;
  readonly type: number;
}

/** Writes one directory block at the start of `target`, which is zero. */
export function encodeDirectoryBlock(entries: readonly DirectoryEntry[], target: Buffer): void {
  let nameOffset = entries.length * DIRENT_BYTES;
  for (const [i, { name, nid, type }] of entries.entries()) {
    const at = i * DIRENT_BYTES;
    target.writeUInt32LE(nid >>> 0, at);
    target.writeUInt32LE(Math.floor(nid / 2 ** 32), at + 4);
    target.writeUInt16LE(nameOffset, at + 8);
    target[at + 10] = type;
    target.write(name, nameOffset, 'latin1');
    nameOffset += name.length;
  }
}

/** Decodes one block, the last one cut to the directory's size; a string says what is wrong with it. */
export function decodeDirectoryBlock(block: Uint8Array): DirectoryEntry[] | string {
  const view = Buffer.from(block.buffer, block.byteOffset, block.byteLength);
  if (view.length < DIRENT_BYTES) return 'a directory block is too short for an entry';
  const namesStart = view.readUInt16LE(8);
  if (namesStart === 0 || namesStart % DIRENT_BYTES !== 0 || namesStart > view.length) {
    return 'a directory block has an impossible number of entries';
  }
  const count = namesStart / DIRENT_BYTES;
  const entries: DirectoryEntry[] = [];
  for (let i = 0; i < count; i++) {
    const at = i * DIRENT_BYTES;
    const start = view.readUInt16LE(at + 8);
    const last = i === count - 1;
    const limit = last ? view.length : view.readUInt16LE(at + DIRENT_BYTES + 8);
    if (limit <= start || limit > view.length || start < namesStart) return 'a name lies outside its directory block';
    const end = last ? endOfName(view, start) : limit;
    if (last && view.subarray(end).some((byte) => byte !== 0)) return 'a directory block has bytes after its names';
    const nid = view.readUInt32LE(at) + view.readUInt32LE(at + 4) * 2 ** 32;
    if (view[at + 11] !== 0) return 'a directory entry has a reserved byte set';
    entries.push({ name: view.toString('latin1', start, end), nid, type: view[at + 10]! });
  }
  return entries;
}

function endOfName(block: Buffer, start: number): number {
  const end = block.indexOf(0, start);
  return end === -1 ? block.length : end;
}
