import { randomUUID } from 'node:crypto';
import { readSync } from 'node:fs';
import { mkdir, open, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import { toDecantError } from '@decant/core';

import type { BlobReader } from './tree.ts';

/**
 * One temporary file without a name: bytes are appended in order and read back anywhere. It is gone when it is
 * disposed or when the process ends, however it ends.
 */
export interface Scratch extends BlobReader, AsyncDisposable {
  /** Bytes appended so far: where the next ones will lie. */
  readonly sizeBytes: number;
  /** Appends bytes; calls must not overlap. @throws DISK_FULL, INTERNAL */
  append(bytes: Uint8Array): Promise<void>;
}

/** Makes a scratch file in a directory, which is made when it is missing. @throws DISK_FULL, INTERNAL */
export async function createScratch(directory: string): Promise<Scratch> {
  const path = join(directory, `.decant-scratch-${randomUUID()}`);
  let file: FileHandle | undefined;
  try {
    await mkdir(directory, { recursive: true });
    file = await open(path, 'wx+', 0o600);
    await unlink(path);
    return new ScratchFile(file);
  } catch (error) {
    await file?.close();
    throw toDecantError(error);
  }
}

class ScratchFile implements Scratch {
  #file: FileHandle;
  #sizeBytes = 0;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  async append(bytes: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, this.#sizeBytes + done);
        done += bytesWritten;
      }
    } catch (error) {
      throw toDecantError(error);
    }
    this.#sizeBytes += bytes.length;
  }

  readSync(target: Uint8Array, position: number): number {
    let done = 0;
    while (done < target.length) {
      const bytesRead = readSync(this.#file.fd, target, done, target.length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Closing twice is no error: a scope and its owner may both do it.
    await this.#file.close();
  }
}
