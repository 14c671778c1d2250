import { createHash } from 'node:crypto';

import type { Inventory } from './inventory.ts';
import { storedTime } from './source-date.ts';

/** 32 bytes from the names and metadata of a tree, and from what else makes a filesystem of it. */
export function seedOf(
  { inodes }: Inventory,
  { sizeBytes, label, latestSeconds }: { sizeBytes: number; label: string; latestSeconds: number | undefined },
): Buffer {
  const hash = createHash('sha256').update(JSON.stringify([sizeBytes, label]));
  for (const { node, children } of inodes) {
    const { xattrs, ...meta } = node.meta;
    const attributes = xattrs.map(({ name, value }) => [name, Buffer.from(value).toString('hex')]);
    const names = children.map(({ name, inode }) => [name, inode.index]);
    const time = storedTime(node.meta, latestSeconds);
    const own = node.kind === 'file' ? node.sizeBytes : node.kind === 'symlink' ? node.target : '';
    hash.update(
      JSON.stringify([
        node.kind,
        meta.mode,
        meta.uid,
        meta.gid,
        time.mtimeSeconds,
        time.mtimeNanoseconds,
        attributes,
        own,
        names,
      ]),
    );
  }
  return hash.digest();
}

/** A version 8 UUID (RFC 9562) from 16 bytes of the seed. */
export function uuidFrom(seed: Buffer, start: number): string {
  const bytes = Buffer.from(seed.subarray(start, start + 16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
