import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';

import { Semaphore, toDecantError, type OnEvent } from '@decant/core';

import type { BlobName, ReadOptions } from '../blob-source.ts';
import { checked } from '../digest.ts';
import { readRange } from '../file-range.ts';

export interface FetchLayersOptions {
  /** Takes one file for each layer. */
  readonly directory: string;
  /** Layers that are downloaded at a time. */
  readonly parallel: number;
  readonly onEvent: OnEvent | undefined;
  readonly download: (blob: BlobName, options: ReadOptions) => AsyncIterable<Uint8Array>;
}

const PROGRESS_BYTES = 4 * 1024 * 1024;

/**
 * The layers of an image, downloaded once each into files, several at a time. Downloads begin with the first
 * read; a layer can be read once it is complete and checked, as often as one likes.
 */
export class FetchedLayers implements AsyncDisposable {
  readonly #options: FetchLayersOptions;
  readonly #layers: readonly BlobName[];
  readonly #files = new Map<string, Promise<string>>();
  readonly #stop = new AbortController();
  readonly #mark = randomUUID();
  #doneBytes = 0;
  #doneItems = 0;
  #reported = 0;
  #started = 0;

  constructor(layers: readonly BlobName[], options: FetchLayersOptions) {
    this.#layers = layers;
    this.#options = options;
  }

  async *read(blob: BlobName, { lend, signal }: ReadOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    this.#start();
    const path = await untilAborted(this.#files.get(blob.digest)!, signal);
    const file = await open(path, 'r');
    try {
      yield* readRange(file, 0, blob.size, { lend, signal });
    } finally {
      await file.close();
    }
  }

  #start(): void {
    if (this.#files.size > 0) return;
    const slots = new Semaphore(this.#options.parallel);
    const { signal } = this.#stop;
    for (const layer of this.#layers) {
      if (this.#files.has(layer.digest)) continue;
      const file = slots.run(() => this.#fetch(layer), signal);
      // Whoever reads the layer learns of it.
      file.catch(() => undefined);
      this.#files.set(layer.digest, file);
    }
    this.#started = performance.now();
    const totals = { totalBytes: this.#totalBytes(), totalItems: this.#files.size };
    this.#options.onEvent?.({ type: 'stage-started', stage: 'fetch', ...totals });
  }

  async #fetch(layer: BlobName): Promise<string> {
    const { signal } = this.#stop;
    const path = join(this.#options.directory, `layer-${this.#mark}-${layer.digest.slice(7)}`);
    const expected = { digest: layer.digest, sizeBytes: layer.size, what: `The layer ${layer.digest}` };
    try {
      const file = await open(path, 'wx', 0o600);
      try {
        for await (const piece of checked(this.#options.download(layer, { signal }), expected)) {
          await writeAll(file, piece);
          this.#progress(piece.length, 0);
        }
      } finally {
        await file.close();
      }
    } catch (error) {
      await rm(path, { force: true });
      signal.throwIfAborted();
      throw toDecantError(error);
    }
    this.#progress(0, 1);
    return path;
  }

  #progress(bytes: number, items: number): void {
    this.#doneBytes += bytes;
    this.#doneItems += items;
    if (items === 0 && this.#doneBytes - this.#reported < PROGRESS_BYTES) return;
    this.#reported = this.#doneBytes;
    const facts = { bytes: this.#doneBytes, items: this.#doneItems };
    const totals = { totalBytes: this.#totalBytes(), totalItems: this.#files.size };
    this.#options.onEvent?.({ type: 'stage-progress', stage: 'fetch', ...facts, ...totals });
    if (this.#doneItems < this.#files.size) return;
    const elapsedMs = Math.round(performance.now() - this.#started);
    this.#options.onEvent?.({ type: 'stage-finished', stage: 'fetch', ...facts, elapsedMs });
  }

  #totalBytes(): number {
    return [...new Map(this.#layers.map(({ digest, size }) => [digest, size])).values()].reduce((a, b) => a + b, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new DOMException('The image was given up.', 'AbortError'));
    for (const file of this.#files.values()) {
      const path = await file.catch(() => undefined);
      if (path !== undefined) await rm(path, { force: true });
    }
  }
}

async function writeAll(file: Awaited<ReturnType<typeof open>>, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += (await file.write(bytes, done)).bytesWritten;
}

function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
