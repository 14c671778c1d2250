import { Buffer } from 'node:buffer';

/** An entry of a small test archive. Anything that ustar cannot express is out of scope here. */
export interface TarEntry {
  /** At most 100 bytes. */
  readonly path: string;
  readonly type?: 'file' | 'directory' | 'symlink' | 'hardlink';
  readonly data?: Uint8Array | string;
  readonly linkTarget?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds since 1970. */
  readonly mtimeSeconds?: number;
}

const TYPE_FLAG = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const;

/** A POSIX ustar archive, the same bytes for the same entries. */
export function makeTar(entries: readonly TarEntry[]): Buffer {
  const blocks = entries.flatMap((entry) => {
    const data = Buffer.from(entry.data ?? '');
    const padding = Buffer.alloc((512 - (data.length % 512)) % 512);
    return [header(entry, data.length), data, padding];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

/*
 * Offsets in the 512 bytes of a header (POSIX.1-2017, pax, "ustar Interchange Format"):
 *   0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 size 12 | 136 mtime 12 | 148 checksum 8
 *   156 type 1 | 157 link target 100 | 257 magic "ustar\0" 6 | 263 version "00" 2
 */
function header(entry: TarEntry, sizeBytes: number): Buffer {
  const { type = 'file', linkTarget = '', uid = 0, gid = 0, mtimeSeconds = 0 } = entry;
  const mode = entry.mode ?? (type === 'directory' ? 0o755 : 0o644);
  const block = Buffer.alloc(512);
  const text = (value: string, offset: number, lengthBytes: number) => {
    if (Buffer.byteLength(value) > lengthBytes) throw new RangeError(`too long for ustar: ${value}`);
    block.write(value, offset);
  };
  const octal = (value: number, offset: number, lengthBytes: number) =>
    text(value.toString(8).padStart(lengthBytes - 1, '0'), offset, lengthBytes - 1);
  text(entry.path, 0, 100);
  octal(mode, 100, 8);
  octal(uid, 108, 8);
  octal(gid, 116, 8);
  octal(sizeBytes, 124, 12);
  octal(mtimeSeconds, 136, 12);
  block.fill(' ', 148, 156);
  text(TYPE_FLAG[type], 156, 1);
  text(linkTarget, 157, 100);
  text('ustar', 257, 6);
  text('00', 263, 2);
  const sum = block.reduce((total, byte) => total + byte, 0);
  text(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8);
  return block;
}
