import { open, type FileHandle } from 'node:fs/promises';

import { createPackBuilder, type HashProvider, type PackBuilder } from '@decant/cas';
import { releaseBytes, type ChunkFrame } from '@decant/core';

/** A staging pack being written to a file. Its name is a number, so nothing but its table is hashed. */
export class StagingPack {
  readonly path: string;
  readonly #builder: PackBuilder;
  readonly #file: FileHandle;
  #parts: Uint8Array[] = [];

  private constructor(path: string, builder: PackBuilder, file: FileHandle) {
    this.path = path;
    this.#builder = builder;
    this.#file = file;
  }

  static async create(path: string, hash: HashProvider): Promise<StagingPack> {
    return new StagingPack(path, createPackBuilder({ hash, digestOf: 'table' }), await open(path, 'wx', 0o600));
  }

  fits(frame: ChunkFrame): boolean {
    return this.#builder.fits(frame.stored.length);
  }

  /** Takes a chunk; its bytes must not change before they are written, and are given up then. */
  add(frame: ChunkFrame): void {
    this.#parts.push(...this.#builder.add(frame));
  }

  /** Writes what was added, all of it at once. */
  async write(): Promise<void> {
    const parts = this.#parts;
    this.#parts = [];
    for (let left: readonly Uint8Array[] = parts; left.length > 0;) {
      const { bytesWritten } = await this.#file.writev(left);
      left = after(left, bytesWritten);
    }
    for (const part of parts) releaseBytes(part);
  }

  async finish(): Promise<void> {
    this.#parts.push(this.#builder.finish().bytes);
    await this.write();
    await this.close();
  }

  /** May be called again. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** What is left of the parts once so many of their bytes are written: the system may take fewer than it was given. */
function after(parts: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let done = bytes;
  return parts.flatMap((part) => {
    const from = Math.min(done, part.length);
    done -= from;
    return from === part.length ? [] : [part.subarray(from)];
  });
}
