import type { FileHandle } from 'node:fs/promises';

import { DecantError } from '@decant/core';

import type { ReadOptions } from './blob-source.ts';
import type { ByteCursor } from './byte-cursor.ts';

const PIECE_BYTES = 256 * 1024;

/** A range of an open file in pieces, lent ones all in the same memory. @throws OCI_SOURCE_INVALID when the file is shorter than it was. */
export async function* readRange(
  file: FileHandle,
  start: number,
  lengthBytes: number,
  { lend = false, signal }: ReadOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  let memory: Uint8Array | undefined;
  for (let done = 0; done < lengthBytes;) {
    signal?.throwIfAborted();
    const want = Math.min(PIECE_BYTES, lengthBytes - done);
    const { bytesRead, buffer } = await file.read((memory ??= new Uint8Array(PIECE_BYTES)), 0, want, start + done);
    if (bytesRead === 0) {
      throw new DecantError('OCI_SOURCE_INVALID', 'A file of the image became shorter while it was read.');
    }
    done += bytesRead;
    yield buffer.subarray(0, bytesRead);
    if (!lend) memory = undefined;
  }
}

/** A cursor on an open file: skipping does not read. */
export class FileCursor implements ByteCursor {
  #file: FileHandle;
  #sizeBytes: number;
  #offset = 0;

  constructor(file: FileHandle, sizeBytes: number) {
    this.#file = file;
    this.#sizeBytes = sizeBytes;
  }

  get offset(): number {
    return this.#offset;
  }

  async take(lengthBytes: number): Promise<Uint8Array> {
    const want = Math.min(lengthBytes, this.#sizeBytes - this.#offset);
    const buffer = Buffer.alloc(want);
    let done = 0;
    while (done < want) {
      const { bytesRead } = await this.#file.read(buffer, done, want - done, this.#offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    this.#offset += done;
    return buffer.subarray(0, done);
  }

  skip(lengthBytes: number): Promise<number> {
    const step = Math.min(lengthBytes, this.#sizeBytes - this.#offset);
    this.#offset += step;
    return Promise.resolve(step);
  }

  drain(): Promise<void> {
    this.#offset = this.#sizeBytes;
    return Promise.resolve();
  }

  /** The file belongs to whoever opened it. */
  close(): Promise<void> {
    return Promise.resolve();
  }
}
