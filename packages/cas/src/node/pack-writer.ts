import { closeSync, fsyncSync, openSync, writevSync } from 'node:fs';
import { join } from 'node:path';

import type { ChunkFrame } from '@decant/core';

import type { HashProvider } from '../hash/hash-provider.ts';
import { createPackBuilder, type PackBuilder } from '../pack-builder.ts';

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

/** Writes frames into packs of at most 64 MiB, one after the other, without keeping any bytes. */
export class PackWriter implements Disposable {
  readonly #options: PackWriterOptions;
  readonly #finished: WrittenPack[] = [];
  #open: { readonly fd: number; readonly path: string; readonly builder: PackBuilder } | undefined;

  constructor(options: PackWriterOptions) {
    this.#options = options;
  }

  add(frame: ChunkFrame): void {
    if (this.#open?.builder.fits(frame.stored.length) === false) this.#finish();
    this.#open ??= this.#create();
    writeAll(this.#open.fd, this.#open.builder.add(frame));
  }

  /** Ends the last pack; returns all of them. */
  finish(): readonly WrittenPack[] {
    this.#finish();
    return this.#finished;
  }

  [Symbol.dispose](): void {
    if (this.#open !== undefined) closeSync(this.#open.fd);
    this.#open = undefined;
  }

  #create() {
    const { directory, prefix, hash } = this.#options;
    const path = join(directory, `${prefix}-${this.#finished.length}.pack`);
    return { fd: openSync(path, 'wx'), path, builder: createPackBuilder({ hash, digestOf: 'table' }) };
  }

  #finish(): void {
    if (this.#open === undefined) return;
    const { fd, path, builder } = this.#open;
    const { bytes, digest, sizeBytes } = builder.finish();
    writeAll(fd, [bytes]);
    if (this.#options.fsync) fsyncSync(fd);
    this[Symbol.dispose]();
    this.#finished.push({ path, digest, sizeBytes });
  }
}

function writeAll(fd: number, parts: readonly Uint8Array[]): void {
  let rest = parts;
  while (rest.length > 0) {
    let written = writevSync(fd, rest);
    // A write may take a part only, for example when the disk is nearly full.
    while (rest.length > 0 && written >= rest[0]!.length) {
      written -= rest[0]!.length;
      rest = rest.slice(1);
    }
    if (rest.length > 0) rest = [rest[0]!.subarray(written), ...rest.slice(1)];
  }
}
