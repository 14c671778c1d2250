import { createPackBuilder, type FinishedPack, type PackBuilder } from '@decant/cas';
import { MIB, type ChunkFrame } from '@decant/core';

import type { IngestContext, WrittenPack } from './admission.ts';
import { packKey } from './object-keys.ts';
import { restsAs } from './resting-object.ts';

/** Bytes at which a pack at rest is closed: it is held in memory until its digest, and so its key, is known. */
const REST_PACK_BYTES = 16 * MIB;

/**
 * Writes packs at rest from frames that were verified, in the order they come. While the store makes one durable, the next
 * is filled. Disposing of it waits for what is on its way.
 */
export class RestPackWriter implements AsyncDisposable {
  readonly #context: IngestContext;
  readonly #packs: WrittenPack[] = [];
  #builder: PackBuilder;
  /**
   * The chunks of the open pack, in one buffer that every pack uses: thousands of small ones a pack, left to the collector,
   * scatter over the heap of the C library, which then gives nothing back.
   */
  readonly #buffer = new Uint8Array(REST_PACK_BYTES);
  #filled = 0;
  /** The pack before, on its way into the store. */
  #storing: Promise<void> = Promise.resolve();

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
    await this.#storing;
    return this.#packs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#storing.catch(() => undefined);
  }

  #newBuilder(): PackBuilder {
    return createPackBuilder({ hash: this.#context.hash, maxBytes: REST_PACK_BYTES });
  }

  /** Gives the open pack to the store; its buffer can be filled again afterwards. */
  async #close(): Promise<void> {
    const finished = this.#builder.finish();
    const pieces = [this.#buffer.subarray(0, this.#filled), finished.bytes];
    this.#builder = this.#newBuilder();
    await this.#storing;
    const taken = Promise.withResolvers<void>();
    this.#storing = this.#store(finished, pieces, taken.resolve).finally(taken.resolve);
    // Whoever awaits it next gets its failure; until then it must not count as unhandled.
    this.#storing.catch(() => undefined);
    await taken.promise;
    this.#filled = 0;
  }

  async #store({ table, digest }: FinishedPack, pieces: readonly Uint8Array[], onTaken: () => void): Promise<void> {
    const { store, namespace, signal } = this.#context;
    const key = packKey(namespace, digest);
    // The key names the bytes: an object that has it is this one, or it is damaged and this replaces it.
    const existing = await store.head(key, { signal });
    const rests = existing !== undefined && (await restsAs(store, key, pieces, signal));
    const { sizeBytes } = rests ? existing : await store.put(key, iterate(pieces, onTaken), { signal });
    this.#packs.push({ key, sizeBytes, chunks: { [Symbol.iterator]: () => table.rows() } });
  }
}

/** The pieces; `onTaken` is called when the last one has been used. */
async function* iterate(pieces: readonly Uint8Array[], onTaken: () => void): AsyncGenerator<Uint8Array> {
  yield* pieces;
  onTaken();
}
