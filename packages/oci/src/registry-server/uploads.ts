import { randomBytes } from 'node:crypto';

import { concatBytes, isDecantError, type ObjectStore } from '@decant/core';

import { checked } from '../digest.ts';
import { RegistryProblem } from './answers.ts';
import { needBlob } from './blobs.ts';
import type { DigestUse } from './digest-use.ts';
import type { RegistryKeys } from './keys.ts';
import type { RegistryLimits } from './handler.ts';

const ID = /^[0-9a-f]{12}-[0-9a-f]{32}$/;
const BEGUN = 'begun';
const MAX_PARTS = 10_000;

type Body = ReadableStream<Uint8Array> | null;

/** Blobs on their way in: nothing of them can be read before their digest has been checked. */
export class Uploads {
  readonly #store: ObjectStore;
  readonly #keys: RegistryKeys;
  readonly #limits: RegistryLimits;
  readonly #use: DigestUse;
  readonly #busy = new Set<string>();

  constructor(store: ObjectStore, keys: RegistryKeys, limits: RegistryLimits, use: DigestUse) {
    this.#store = store;
    this.#keys = keys;
    this.#limits = limits;
    this.#use = use;
  }

  /** Begins an upload and returns its id, which begins with the time. Old ones of the repository go. */
  async begin(repository: string, signal: AbortSignal): Promise<string> {
    const open = await this.removeOld(repository, signal);
    if (open >= this.#limits.openUploads) {
      throw new RegistryProblem('TOOMANYREQUESTS', `The repository has ${open} uploads that are not finished.`);
    }
    const time = Date.now().toString(16).padStart(12, '0');
    const id = `${time}-${randomBytes(16).toString('hex')}`;
    await this.#store.put(`${this.#keys.upload(repository, id)}${BEGUN}`, new Uint8Array(), { signal });
    return id;
  }

  /** Bytes received so far. */
  async offset(repository: string, id: string, signal: AbortSignal): Promise<number> {
    return (await this.#parts(repository, id, signal)).offset;
  }

  /** Adds what comes next; `start`, when the client says it, must be where the upload stands. Returns the new offset. */
  append(repository: string, id: string, body: Body, start: number | undefined, signal: AbortSignal): Promise<number> {
    return this.#alone(id, async () => {
      const { offset, count } = await this.#parts(repository, id, signal);
      if (start !== undefined && start !== offset) {
        throw new RegistryProblem('RANGE_INVALID', `The upload stands at ${offset}.`, rangeHeader(offset));
      }
      if (body === null) return offset;
      if (count >= MAX_PARTS) throw new RegistryProblem('BLOB_UPLOAD_INVALID', 'The upload has too many chunks.');
      const room = this.#limits.blobBytes - offset;
      const key = `${this.#keys.upload(repository, id)}${String(offset).padStart(16, '0')}`;
      const { sizeBytes } = await this.#store.put(key, bounded(body, room), { signal });
      if (sizeBytes === 0) await this.#store.delete(key, { signal });
      return offset + sizeBytes;
    });
  }

  /** Makes a blob of what was received and of what comes last, if its digest is right. */
  finish(repository: string, id: string, body: Body, digest: string, signal: AbortSignal): Promise<void> {
    return this.#alone(id, async () => {
      const parts = await this.#parts(repository, id, signal);
      await this.#use.using(digest, async () => {
        await this.#store.put(this.#keys.blob(digest), this.#verified(parts, body, digest, signal), { signal });
        await this.#store.put(this.#keys.link(repository, digest), new Uint8Array(), { signal });
        await needBlob(this.#store, this.#keys, repository, digest, signal);
      });
      await this.#remove(repository, id, signal);
    });
  }

  cancel(repository: string, id: string, signal: AbortSignal): Promise<void> {
    return this.#alone(id, async () => {
      await this.#parts(repository, id, signal);
      await this.#remove(repository, id, signal);
    });
  }

  async *#verified(parts: Parts, body: Body, digest: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    try {
      yield* checked(this.#joined(parts, body, signal), { digest, what: 'The blob' });
    } catch (error) {
      if (!isDecantError(error, 'OCI_DIGEST_MISMATCH')) throw error;
      throw new RegistryProblem('DIGEST_INVALID', error.message);
    }
  }

  async *#joined(parts: Parts, body: Body, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    for (const key of parts.keys) yield* this.#store.stream(key, { signal });
    if (body !== null) yield* bounded(body, this.#limits.blobBytes - parts.offset);
  }

  async #parts(repository: string, id: string, signal: AbortSignal): Promise<Parts> {
    const prefix = ID.test(id) ? this.#keys.upload(repository, id) : undefined;
    let begun = false;
    let offset = 0;
    const keys: string[] = [];
    if (prefix !== undefined) {
      for await (const { key, sizeBytes } of this.#store.list(prefix, { signal })) {
        if (key === `${prefix}${BEGUN}`) {
          begun = true;
          continue;
        }
        // A part beyond a gap cannot be: each begins where those before it end.
        if (Number(key.slice(prefix.length)) !== offset) break;
        keys.push(key);
        offset += sizeBytes;
      }
    }
    if (!begun) {
      // The marker sorts after the digits of the parts, so it may lie beyond a gap.
      const marker = prefix === undefined ? undefined : await this.#store.head(`${prefix}${BEGUN}`, { signal });
      if (marker === undefined) throw new RegistryProblem('BLOB_UPLOAD_UNKNOWN', 'There is no such upload.');
    }
    return { keys, offset, count: keys.length };
  }

  async #remove(repository: string, id: string, signal: AbortSignal): Promise<void> {
    const prefix = this.#keys.upload(repository, id);
    // The marker first: without it the rest is no upload any more.
    await this.#store.delete(`${prefix}${BEGUN}`, { signal });
    const keys: string[] = [];
    for await (const { key } of this.#store.list(prefix, { signal })) keys.push(key);
    for (const key of keys) await this.#store.delete(key, { signal });
  }

  /** Removes uploads that were begun too long ago; returns how many others are not finished. */
  async removeOld(repository: string, signal: AbortSignal): Promise<number> {
    const oldest = Date.now() - this.#limits.uploadAgeMs;
    const prefix = this.#keys.uploads(repository);
    const open = new Set<string>();
    const old = new Set<string>();
    for await (const { key } of this.#store.list(prefix, { signal })) {
      const id = key.slice(prefix.length).split('/')[0]!;
      if (ID.test(id)) (Number.parseInt(id.slice(0, 12), 16) < oldest ? old : open).add(id);
    }
    for (const id of old) if (!this.#busy.has(id)) await this.#remove(repository, id, signal);
    return open.size;
  }

  async #alone<T>(id: string, action: () => Promise<T>): Promise<T> {
    if (this.#busy.has(id)) throw new RegistryProblem('BLOB_UPLOAD_INVALID', 'The upload is being written to.');
    this.#busy.add(id);
    try {
      return await action();
    } finally {
      this.#busy.delete(id);
    }
  }
}

interface Parts {
  readonly keys: readonly string[];
  readonly offset: number;
  readonly count: number;
}

/** The range that has been received, as clients expect it: `0-0` also for nothing. */
export function rangeHeader(offset: number): { range: string } {
  return { range: `0-${Math.max(0, offset - 1)}` };
}

async function* bounded(body: ReadableStream<Uint8Array>, limit: number): AsyncGenerator<Uint8Array> {
  let total = 0;
  for await (const piece of body) {
    total += piece.length;
    if (total > limit) throw new RegistryProblem('SIZE_INVALID', 'That is larger than this registry takes.');
    yield piece;
  }
}

/** A whole body of at most `limit` bytes. */
export async function readLimited(body: Body, limit: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  if (body !== null) for await (const piece of bounded(body, limit)) pieces.push(piece);
  return concatBytes(pieces);
}
