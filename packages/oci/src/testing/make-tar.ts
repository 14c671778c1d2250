/** A small tar maker for tests: it writes what it is told, also what no sane program would. */
export interface TarSpec {
  readonly path: string | Uint8Array;
  /** Type character; default `0`, or `5` for a name that ends with a slash. */
  readonly type?: string;
  readonly data?: string | Uint8Array;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly link?: string | Uint8Array;
  readonly dev?: readonly [major: number, minor: number];
  /** Records of a PAX header before the entry, in this order. */
  readonly pax?: readonly (readonly [key: string, value: string | Uint8Array])[];
  /** Size in the header where it is not that of the data. */
  readonly size?: number;
  /** Last word on the header block; the checksum is made afterwards. */
  readonly patch?: (header: Buffer) => void;
}

export interface TarMakeOptions {
  /** Zero blocks at the end; default 2. */
  readonly endBlocks?: number;
}

const BLOCK = 512;
const bytesOf = (value: string | Uint8Array) =>
  typeof value === 'string' ? Buffer.from(value, 'utf8') : Buffer.from(value);

export function makeTar(entries: readonly TarSpec[], options: TarMakeOptions = {}): Buffer {
  const parts: Buffer[] = [];
  for (const entry of entries) parts.push(...entryBlocks(entry));
  parts.push(Buffer.alloc(BLOCK * (options.endBlocks ?? 2)));
  return Buffer.concat(parts);
}

/** One entry with the headers it needs: a PAX path when the name does not fit into 100 bytes. */
export function entryBlocks(entry: TarSpec): Buffer[] {
  const path = bytesOf(entry.path);
  const link = bytesOf(entry.link ?? '');
  const pax = [...(entry.pax ?? [])];
  if (path.length > 100 && !pax.some(([key]) => key === 'path')) pax.push(['path', path]);
  if (link.length > 100 && !pax.some(([key]) => key === 'linkpath')) pax.push(['linkpath', link]);
  const data = bytesOf(entry.data ?? '');
  const blocks: Buffer[] = [];
  if (pax.length > 0) {
    const records = paxRecords(pax);
    blocks.push(header({ path: 'PaxHeaders/x', type: 'x' }, records.length), padded(records));
  }
  blocks.push(header(entry, entry.size ?? data.length), padded(data));
  return blocks;
}

export function paxRecords(records: readonly (readonly [key: string, value: string | Uint8Array])[]): Buffer {
  return Buffer.concat(
    records.map(([key, value]) => {
      const rest = Buffer.concat([Buffer.from(` ${key}=`), bytesOf(value), Buffer.from('\n')]);
      let length = rest.length + 1;
      while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
      return Buffer.concat([Buffer.from(String(length)), rest]);
    }),
  );
}

export function header(entry: TarSpec, size: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  const path = bytesOf(entry.path);
  const isDirectory = path.at(-1) === 0x2f;
  path.copy(block, 0, 0, 100);
  number(block, 100, 8, entry.mode ?? (isDirectory ? 0o755 : 0o644));
  number(block, 108, 8, entry.uid ?? 0);
  number(block, 116, 8, entry.gid ?? 0);
  number(block, 124, 12, size);
  number(block, 136, 12, entry.mtime ?? 0);
  block.write(entry.type ?? (isDirectory ? '5' : '0'), 156, 'latin1');
  bytesOf(entry.link ?? '').copy(block, 157, 0, 100);
  block.write('ustar\x0000', 257, 'latin1');
  number(block, 329, 8, entry.dev?.[0] ?? 0);
  number(block, 337, 8, entry.dev?.[1] ?? 0);
  entry.patch?.(block);
  sign(block);
  return block;
}

/** Puts the right checksum into a header block. */
export function sign(block: Buffer): void {
  block.fill(0x20, 148, 156);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}

/** Octal where it fits, GNU base-256 where it does not. */
export function number(block: Buffer, offset: number, length: number, value: number): void {
  const octal = value.toString(8);
  if (value >= 0 && octal.length < length) {
    block.write(`${octal.padStart(length - 1, '0')}\0`, offset, 'latin1');
    return;
  }
  let rest = BigInt(value);
  for (let i = offset + length - 1; i >= offset; i--) {
    block[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[offset]! |= 0x80;
}

export function padded(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK)]);
}
