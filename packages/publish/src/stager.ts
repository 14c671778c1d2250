import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';

import type { EncodedChunk, HashProvider, ThreadedCodec } from '@decant/cas';
import { DecantError, KIB, MIB, STAGED, type ChunkFrame, type ChunkId, type Fetch, type OnEvent } from '@decant/core';
import { filePartSource, uploadArtifact } from '@decant/dataplane';
import type { HttpClient } from '@decant/transport';

import { missingChunks } from './missing.ts';
import { StagingPack } from './staging-pack.ts';

export interface StagerOptions {
  readonly client: HttpClient;
  readonly fetch: Fetch;
  readonly hash: HashProvider;
  readonly codec: ThreadedCodec;
  /** Prefix the packs go below, as the server gave it. */
  readonly prefix: string;
  /** Chunks the server is known to have. */
  readonly known: ReadonlySet<ChunkId>;
  readonly scratchDirectory: string;
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Plain bytes that are gathered before the server is asked which of them it lacks, and how many chunks. */
const BATCH_BYTES = 4 * MIB;
const BATCH_CHUNKS = 4096;
/** Chunks that are compressed at once: on libuv's threads, of which files need one. */
const AT_ONCE = 3;
/** Plain bytes taken between two turns of the event loop, in which threads that are done get the next chunk. */
const TURN_BYTES = 512 * KIB;

interface BatchChunk {
  readonly id: ChunkId;
  readonly offset: number;
  readonly plainBytes: number;
}

/**
 * Takes an image's chunks in order and uploads those that the server lacks, in staging packs. While one batch is
 * gathered, the one before is compressed and written; one pack is on its way while the next is filled. Memory holds
 * two batches and the frames of one, the disk two packs. Disposing of it before `finish` gives up what is on its way.
 */
export class ChunkStager implements AsyncDisposable {
  readonly #options: StagerOptions;
  readonly #directory: string;
  /** Ends what is on its way when the stager is disposed of before it finished. */
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #seen = new Set<ChunkId>();
  #batch: BatchChunk[] = [];
  /** The chunks of the batch; the other buffer has those of the batch that is being stored. */
  #plain = new Uint8Array(BATCH_BYTES);
  #other = new Uint8Array(BATCH_BYTES);
  #batchBytes = 0;
  #turnBytes = 0;
  #storing: Promise<void> = Promise.resolve();
  #pack: StagingPack | undefined;
  #packs = 0;
  #upload: Promise<void> = Promise.resolve();
  #offeredBytes = 0;
  #uploadedBytes = 0;

  private constructor(options: StagerOptions, directory: string) {
    this.#options = options;
    this.#directory = directory;
    const { signal } = options;
    this.#signal = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
  }

  static async create(options: StagerOptions): Promise<ChunkStager> {
    return new ChunkStager(options, await mkdtemp(join(options.scratchDirectory, 'stage-')));
  }

  /** Bytes of all packs that were sent. */
  get uploadedBytes(): number {
    return this.#uploadedBytes;
  }

  /** Takes a chunk; its bytes are copied. */
  async offer(id: ChunkId, plain: Uint8Array): Promise<void> {
    this.#offeredBytes += plain.length;
    if (this.#seen.has(id)) return;
    this.#seen.add(id);
    if (this.#options.known.has(id)) return;
    if (this.#batchBytes + plain.length > BATCH_BYTES || this.#batch.length >= BATCH_CHUNKS) await this.#flush();
    this.#batch.push({ id, offset: this.#batchBytes, plainBytes: plain.length });
    this.#plain.set(plain, this.#batchBytes);
    this.#batchBytes += plain.length;
    this.#turnBytes += plain.length;
    if (this.#turnBytes < TURN_BYTES) return;
    this.#turnBytes = 0;
    await setImmediate();
  }

  /** Sends what is left; afterwards everything the server lacked is staged. */
  async finish(): Promise<void> {
    await this.#flush();
    await this.#storing;
    await this.#sealPack();
    await this.#upload;
  }

  /** Begins to store the batch, once the one before is stored. */
  async #flush(): Promise<void> {
    const { client, onEvent } = this.#options;
    const batch = this.#batch;
    const plain = this.#plain;
    onEvent?.({ type: 'stage-progress', stage: 'upload', bytes: this.#offeredBytes, items: this.#seen.size });
    if (batch.length === 0) return;
    const missing = missingChunks(
      client,
      batch.map(({ id }) => id),
      this.#signal,
    );
    // Whoever awaits these next gets their failure; until then it must not count as unhandled.
    missing.catch(() => undefined);
    await this.#storing;
    this.#storing = this.#store(batch, plain, missing);
    this.#storing.catch(() => undefined);
    [this.#plain, this.#other] = [this.#other, plain];
    this.#batch = [];
    this.#batchBytes = 0;
  }

  async #store(batch: readonly BatchChunk[], plain: Uint8Array, asked: Promise<ReadonlySet<ChunkId>>): Promise<void> {
    const { codec } = this.#options;
    const missing = await asked;
    const atWork: { readonly chunk: BatchChunk; readonly encoded: Promise<EncodedChunk> }[] = [];
    const addFirst = async () => {
      const first = atWork.shift();
      if (first === undefined) return;
      const { id, plainBytes } = first.chunk;
      await this.#add({ id, plainBytes, ...(await first.encoded) });
    };
    for (const chunk of batch) {
      this.#signal.throwIfAborted();
      if (!missing.has(chunk.id)) continue;
      if (atWork.length === AT_ONCE) await addFirst();
      const encoded = codec.encodeAside(plain.subarray(chunk.offset, chunk.offset + chunk.plainBytes));
      encoded.catch(() => undefined);
      atWork.push({ chunk, encoded });
    }
    while (atWork.length > 0) await addFirst();
    await this.#pack?.write();
  }

  async #add(frame: ChunkFrame): Promise<void> {
    if (this.#pack !== undefined && !this.#pack.fits(frame)) await this.#sealPack();
    this.#pack ??= await StagingPack.create(join(this.#directory, `pack-${this.#packs}`), this.#options.hash);
    this.#pack.add(frame);
  }

  async #sealPack(): Promise<void> {
    const pack = this.#pack;
    if (pack === undefined) return;
    await pack.finish();
    // One pack is on its way at a time; a failure of the last one ends the work here.
    await this.#upload;
    this.#pack = undefined;
    const number = this.#packs++;
    this.#upload = this.#send(pack, number);
    // Whoever awaits it next gets the failure; until then it must not count as unhandled.
    this.#upload.catch(() => undefined);
  }

  async #send(pack: StagingPack, number: number): Promise<void> {
    const { client, fetch, prefix } = this.#options;
    const source = await filePartSource(pack.path);
    const relPath = `${prefix}/${STAGED.packs}/${String(number).padStart(6, '0')}`;
    const { uploadedBytes } = await uploadArtifact({ client, fetch, relPath, source, signal: this.#signal });
    this.#uploadedBytes += uploadedBytes;
    await rm(pack.path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new DecantError('INGEST_STATE', 'The upload was given up.'));
    await this.#storing.catch(() => undefined);
    await this.#upload.catch(() => undefined);
    await this.#pack?.close();
    await rm(this.#directory, { recursive: true, force: true });
  }
}
