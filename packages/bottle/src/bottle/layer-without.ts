import { createHash } from 'node:crypto';

import { DecantError } from '@decant/core';

/** What was written to a file. */
export interface OwnFile {
  readonly sizeBytes: number;
  /** Hexadecimal. */
  readonly sha256: string;
}

/** Files and folders that a bottle was given by its supervisor. Paths are absolute. */
export interface OwnFiles {
  readonly files: ReadonlyMap<string, OwnFile>;
  /** Folders that were made for them. */
  readonly folders: ReadonlySet<string>;
}

const BLOCK = 512;
/** Most bytes of a PAX header; those of our own writer are far below. */
const MOST_PAX_BYTES = 1024 * 1024;
const ZERO = Buffer.alloc(BLOCK);

/**
 * A layer, as a machine's `exportChanges` writes it (POSIX tar, depth first, PAX records only where a header is too small),
 * without the files that are as the supervisor wrote them and without the folders that hold nothing else. A file that was
 * changed since is the agent's, and stays. @throws JAIL_FAILED for what is no such layer
 */
export async function* layerWithout(
  source: AsyncIterable<Uint8Array | string>,
  { files, folders }: OwnFiles,
): AsyncGenerator<Buffer, void> {
  const input = new ByteReader(source);
  /** Folders that are told of as soon as something in them stays. */
  let held: { readonly path: string; readonly entry: Buffer }[] = [];
  const left = new Map<string, Buffer>();
  try {
    for (;;) {
      let entry = await input.bytes(BLOCK);
      let isPlain = true;
      let size = sizeOf(entry);
      if (entry[156] === 0x78) {
        if (size > MOST_PAX_BYTES) throw broken();
        const records = await input.bytes(padded(size));
        const header = await input.bytes(BLOCK);
        const said = records.toString('latin1', 0, size);
        isPlain = !/\d+ path=/.test(said);
        size = Number(/(?:^|\n)\d+ size=(\d+)\n/.exec(said)?.[1] ?? sizeOf(header));
        entry = Buffer.concat([entry, records, header]);
      }
      const header = entry.subarray(-BLOCK);
      if (header.equals(ZERO)) {
        yield entry;
        break;
      }
      const type = String.fromCharCode(header[156] ?? 0);
      const path = isPlain ? pathOf(header, 0) : undefined;
      const own = type === '0' && path !== undefined ? files.get(path) : undefined;
      if (type === '5' && path !== undefined && folders.has(path)) {
        held = [...held.filter((folder) => path.startsWith(`${folder.path}/`)), { path, entry }];
        continue;
      }
      let content: Buffer | undefined;
      if (own !== undefined && own.sizeBytes === size) {
        content = await input.bytes(padded(size));
        const bytes = content.subarray(0, size);
        if (createHash('sha256').update(bytes).digest('hex') === own.sha256) {
          left.set(path!, bytes);
          continue;
        }
      }
      // What has a path that is too long for a header may be in any of them.
      for (const folder of held)
        if (`${pathOf(header, 0)}/`.startsWith(`${folder.path}/`) || !isPlain) yield folder.entry;
      held = [];
      const target = type === '1' ? left.get(pathOf(header, 157)) : undefined;
      if (target !== undefined) {
        yield Buffer.concat([
          asFile(entry, target.length),
          target,
          Buffer.alloc(padded(target.length) - target.length),
        ]);
        continue;
      }
      yield entry;
      if (content !== undefined) yield content;
      else
        for (let rest = padded(size); rest > 0;) {
          const piece = await input.some(rest);
          rest -= piece.length;
          yield piece;
        }
    }
    yield* input.rest();
  } finally {
    await input.close();
  }
}

function padded(size: number): number {
  return Math.ceil(size / BLOCK) * BLOCK;
}

function sizeOf(header: Buffer): number {
  const text = header.toString('latin1', 124, 136).replace(/[\0 ]+$/, '');
  if (!/^[0-7]*$/.test(text)) throw broken();
  return text === '' ? 0 : Number.parseInt(text, 8);
}

/** A name or link of a header as an absolute path. */
function pathOf(header: Buffer, at: number): string {
  const text = header.toString('utf8', at, at + 100).replace(/\0[^]*$/, '');
  return `/${text.replace(/\/$/, '')}`;
}

/** The header of a hard link as that of a file of so many bytes. */
function asFile(entry: Buffer, size: number): Buffer {
  const changed = Buffer.from(entry);
  const header = changed.subarray(-BLOCK);
  header[156] = 0x30;
  header.fill(0, 157, 257);
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return changed;
}

function broken(): DecantError {
  return new DecantError('JAIL_FAILED', 'The changes of the bottle did not come as a layer.');
}

class ByteReader {
  readonly #source: AsyncIterator<Uint8Array | string>;
  #held: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Uint8Array | string>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Exactly so many. */
  async bytes(count: number): Promise<Buffer> {
    const pieces = [];
    for (let left = count; left > 0;) {
      const piece = await this.some(left);
      pieces.push(piece);
      left -= piece.length;
    }
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }

  /** At least one, at most so many. */
  async some(most: number): Promise<Buffer> {
    while (this.#held.length === 0) {
      const { value, done } = await this.#source.next();
      if (done === true) throw broken();
      this.#held = Buffer.from(value as Uint8Array);
    }
    const piece = this.#held.subarray(0, most);
    this.#held = this.#held.subarray(piece.length);
    return piece;
  }

  async *rest(): AsyncGenerator<Buffer, void> {
    if (this.#held.length > 0) yield this.#held;
    for (let next = await this.#source.next(); next.done !== true; next = await this.#source.next()) {
      yield Buffer.from(next.value as Uint8Array);
    }
  }

  async close(): Promise<void> {
    await this.#source.return?.();
  }
}
