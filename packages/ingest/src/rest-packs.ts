import { createPackBuilder, type PackBuilder } from '@decant/cas';
import { MIB, type ChunkFrame } from '@decant/core';

import type { IngestContext, WrittenPack } from './admission.ts';
import { packKey } from './object-keys.ts';

/** Bytes at which a pack at rest is closed: it is held in memory until its digest, and so its key, is known. */
const REST_PACK_BYTES = 16 * MIB;

/** Writes packs at rest from frames that were verified, in the order they come. */
export class RestPackWriter {
  readonly #context: IngestContext;
  readonly #packs: WrittenPack[] = [];
  #builder: PackBuilder;
  /**
   * The chunks of the open pack, in one buffer that every pack uses: thousands of small ones a pack, left to the collector,
   * scatter over the heap of the C library, which then gives nothing back.
   */
  readonly #buffer = new Uint8Array(REST_PACK_BYTES);
  #filled = 0;

  constructor(context: IngestContext) {
    this.#context = context;
    this.#builder = this.#newBuilder();
  }

  /** Takes a verified frame; its bytes are copied. */
  async add(frame: ChunkFrame): Promise<void> {
    if (!this.#builder.fits(frame.stored.length)) await this.#close();
    for (const bytes of this.#builder.add(frame)) {
      this.#buffer.set(bytes, this.#filled);
      this.#filled += bytes.length;
    }
  }

  async finish(): Promise<readonly WrittenPack[]> {
    if (this.#builder.count > 0) await this.#close();
    return this.#packs;
  }

  #newBuilder(): PackBuilder {
    return createPackBuilder({ hash: this.#context.hash, maxBytes: REST_PACK_BYTES });
  }

  async #close(): Promise<void> {
    const { store, namespace, signal } = this.#context;
    const { bytes, table, digest } = this.#builder.finish();
    const pieces = [this.#buffer.subarray(0, this.#filled), bytes];
    this.#builder = this.#newBuilder();
    const key = packKey(namespace, digest);
    // Also where there is one: it has the same bytes, or it is damaged and this replaces it.
    const { sizeBytes } = await store.put(key, iterate(pieces), { signal });
    this.#filled = 0;
    this.#packs.push({ key, sizeBytes, chunks: { [Symbol.iterator]: () => table.rows() } });
  }
}

async function* iterate(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* pieces;
}
