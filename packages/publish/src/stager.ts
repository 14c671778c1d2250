import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import { createPackBuilder, type ChunkCodec, type HashProvider, type PackBuilder } from '@decant/cas';
import {
  DecantError,
  MIB,
  releaseBytes,
  STAGED,
  type ChunkFrame,
  type ChunkId,
  type Fetch,
  type OnEvent,
} from '@decant/core';
import { filePartSource, uploadArtifact } from '@decant/dataplane';
import type { HttpClient } from '@decant/transport';

import { missingChunks } from './missing.ts';

export interface StagerOptions {
  readonly client: HttpClient;
  readonly fetch: Fetch;
  readonly hash: HashProvider;
  readonly codec: ChunkCodec;
  /** Prefix the packs go below, as the server gave it. */
  readonly prefix: string;
  /** Chunks the server is known to have. */
  readonly known: ReadonlySet<ChunkId>;
  readonly scratchDirectory: string;
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Plain bytes that are gathered before the server is asked which of them it lacks, and how many chunks. */
const BATCH_BYTES = 8 * MIB;
const BATCH_CHUNKS = 4096;

/**
 * Takes an image's chunks in order and uploads those that the server lacks, in staging packs. One pack is on
 * its way while the next is filled; memory holds one batch, the disk two packs. Disposing of it before `finish`
 * gives up what is on its way.
 */
export class ChunkStager implements AsyncDisposable {
  readonly #options: StagerOptions;
  readonly #directory: string;
  /** Ends what is on its way when the stager is disposed of before it finished. */
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #seen = new Set<ChunkId>();
  #batch: { readonly id: ChunkId; readonly offset: number; readonly plainBytes: number }[] = [];
  /** The chunks of the batch, in one buffer that every batch uses. */
  readonly #plain = new Uint8Array(BATCH_BYTES);
  #batchBytes = 0;
  #pack: OpenPack | undefined;
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
  }

  /** Sends what is left; afterwards everything the server lacked is staged. */
  async finish(): Promise<void> {
    await this.#flush();
    await this.#sealPack();
    await this.#upload;
  }

  async #flush(): Promise<void> {
    const { client, codec, onEvent } = this.#options;
    const signal = this.#signal;
    const batch = this.#batch;
    this.#batch = [];
    this.#batchBytes = 0;
    onEvent?.({ type: 'stage-progress', stage: 'upload', bytes: this.#offeredBytes, items: this.#seen.size });
    if (batch.length === 0) return;
    const missing = await missingChunks(
      client,
      batch.map(({ id }) => id),
      signal,
    );
    for (const { id, offset, plainBytes } of batch) {
      signal.throwIfAborted();
      if (!missing.has(id)) continue;
      const { encoding, stored } = codec.encode(this.#plain.subarray(offset, offset + plainBytes));
      await this.#add({ id, encoding, plainBytes, stored });
      releaseBytes(stored);
    }
  }

  async #add(frame: ChunkFrame): Promise<void> {
    if (this.#pack !== undefined && !this.#pack.builder.fits(frame.stored.length)) await this.#sealPack();
    this.#pack ??= await OpenPack.create(join(this.#directory, `pack-${this.#packs}`), this.#options.hash);
    await this.#pack.add(frame);
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

  async #send(pack: OpenPack, number: number): Promise<void> {
    const { client, fetch, prefix } = this.#options;
    const source = await filePartSource(pack.path);
    const relPath = `${prefix}/${STAGED.packs}/${String(number).padStart(6, '0')}`;
    const { uploadedBytes } = await uploadArtifact({ client, fetch, relPath, source, signal: this.#signal });
    this.#uploadedBytes += uploadedBytes;
    await rm(pack.path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new DecantError('INGEST_STATE', 'The upload was given up.'));
    await this.#upload.catch(() => undefined);
    await this.#pack?.close();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** A staging pack being written to a file. */
class OpenPack {
  readonly path: string;
  readonly builder: PackBuilder;
  readonly #file: FileHandle;

  private constructor(path: string, builder: PackBuilder, file: FileHandle) {
    this.path = path;
    this.builder = builder;
    this.#file = file;
  }

  static async create(path: string, hash: HashProvider): Promise<OpenPack> {
    return new OpenPack(path, createPackBuilder({ hash }), await open(path, 'wx', 0o600));
  }

  async add(frame: ChunkFrame): Promise<void> {
    for (const bytes of this.builder.add(frame)) await this.#file.writeFile(bytes);
  }

  async finish(): Promise<void> {
    await this.#file.writeFile(this.builder.finish().bytes);
    await this.close();
  }

  /** May be called again. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}
