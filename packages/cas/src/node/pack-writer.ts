import { join } from 'node:path';

import type { ChunkFrame } from '@decant/core';

import type { HashProvider } from '../hash/hash-provider.ts';
import { createPackBuilder, type PackBuilder } from '../pack-builder.ts';
import { PackFile } from './pack-file.ts';

/** A finished pack in a temporary place. */
export interface WrittenPack {
  readonly path: string;
  /** BLAKE3-256 of its table, 64 hexadecimal digits. */
  readonly digest: string;
  readonly sizeBytes: number;
}

export interface PackWriterOptions {
  readonly directory: string;
  /** Tells the files of several writers in the directory apart. */
  readonly prefix: string;
  readonly hash: HashProvider;
  /** Whether each pack is flushed to the disk when it is finished. */
  readonly fsync: boolean;
}

/** Writes frames into packs of at most 64 MiB, one after the other. */
export class PackWriter implements Disposable {
  readonly #options: PackWriterOptions;
  readonly #finished: WrittenPack[] = [];
  readonly #kept = new Uint8Array(PackFile.KEPT_BYTES);
  #open: { readonly file: PackFile; readonly path: string; readonly builder: PackBuilder } | undefined;

  constructor(options: PackWriterOptions) {
    this.#options = options;
  }

  /** Adds a chunk; its bytes must not change before the next {@link settle} or {@link finish}. */
  add(digest: Uint8Array, frame: Omit<ChunkFrame, 'id'>): void {
    if (this.#open?.builder.fits(frame.stored.length) === false) this.#finish();
    this.#open ??= this.#create();
    for (const part of this.#open.builder.addDigest(digest, frame)) this.#open.file.append(part);
  }

  /** From now on, the bytes of chunks that were added may change. */
  settle(): void {
    this.#open?.file.settle();
  }

  /** Ends the last pack; returns all of them. */
  finish(): readonly WrittenPack[] {
    this.#finish();
    return this.#finished;
  }

  [Symbol.dispose](): void {
    this.#open?.file[Symbol.dispose]();
    this.#open = undefined;
  }

  #create() {
    const { directory, prefix, hash } = this.#options;
    const path = join(directory, `${prefix}-${this.#finished.length}.pack`);
    const file = new PackFile(path, this.#kept);
    return { file, path, builder: createPackBuilder({ hash, digestOf: 'table' }) };
  }

  #finish(): void {
    if (this.#open === undefined) return;
    const { file, path, builder } = this.#open;
    const { bytes, digest, sizeBytes } = builder.finish();
    file.append(bytes);
    file.finish(this.#options.fsync);
    this[Symbol.dispose]();
    this.#finished.push({ path, digest, sizeBytes });
  }
}
