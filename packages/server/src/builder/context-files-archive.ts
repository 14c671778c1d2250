import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { packEntries, type ContextEntry } from '@decant/context';
import {
  contextManifestSchema,
  DecantError,
  isDecantError,
  MAX_CONTEXT_MANIFEST_BYTES,
  type BuildFields,
  type ContextManifest,
  type ContextManifestEntry,
  type Namespace,
  type ObjectStore,
} from '@decant/core';
import { namespacePrefix } from '@decant/ingest';

import type { ContextFileLocation, ContextFileStore } from '../metadata/context-file-store.ts';

/** Where the manifest of a context lies. */
export function contextManifestKey(namespace: Namespace, contextId: string): string {
  return `${namespacePrefix(namespace)}contexts/${contextId}`;
}

/** @throws NOT_FOUND when the namespace has no such context, or no longer. */
export async function loadManifest(
  store: ObjectStore,
  namespace: Namespace,
  contextId: string,
  signal?: AbortSignal,
): Promise<ContextManifest> {
  const key = contextManifestKey(namespace, contextId);
  const info = await store.head(key, { signal });
  if (info === undefined || info.sizeBytes > MAX_CONTEXT_MANIFEST_BYTES) throw unknown(contextId);
  const bytes = await store.get(key, { signal }).catch((error: unknown) => {
    throw isDecantError(error, 'OBJECT_NOT_FOUND') ? unknown(contextId) : error;
  });
  return contextManifestSchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
}

function unknown(contextId: string): DecantError {
  return new DecantError('NOT_FOUND', `There is no context ${contextId}.`, {
    hint: 'Send its manifest first; contexts that nobody uses go after a week.',
  });
}

/** Digests of the files of a manifest, each once. */
export function digestsOf(manifest: ContextManifest): string[] {
  return [...new Set(manifest.entries.flatMap((entry) => (entry.type === 'file' ? [entry.sha256] : [])))];
}

/**
 * The archive of a context that was sent as its files: the very bytes that packing it at the client gives.
 * @throws NOT_FOUND for an unknown context; CONFLICT, retryable, when files of it are not there (any more).
 */
export async function openContextArchive(
  { store, files }: { readonly store: ObjectStore; readonly files: ContextFileStore },
  namespace: Namespace,
  contextId: string,
  signal?: AbortSignal,
): Promise<{ readonly tarBytes: number; readonly stream: AsyncIterable<Uint8Array> }> {
  const manifest = await loadManifest(store, namespace, contextId, signal);
  const digests = digestsOf(manifest);
  const located = await files.locate(namespace, digests);
  if (located.size < digests.length) {
    throw new DecantError('CONFLICT', `${digests.length - located.size} files of the context have not been sent.`, {
      hint: 'Ask which files are missing and send them.',
      details: { contextId, missing: digests.length - located.size },
      retryable: true,
    });
  }
  const digestOf = new Map<ContextEntry, string>();
  const entries = manifest.entries.map((told) => {
    const entry = entryOf(told);
    if (told.type === 'file') digestOf.set(entry, told.sha256);
    return entry;
  });
  const cursor = new ObjectCursor(store, signal);
  const { stream, tarBytes } = packEntries(entries, (entry) => cursor.read(located.get(digestOf.get(entry)!)!), {
    signal,
  });
  return { stream: closing(stream, cursor), tarBytes };
}

/** The context of a submission that names one by its id, as a file of the scratch directory. */
export async function contextOfFiles(
  stores: { readonly store: ObjectStore; readonly files: ContextFileStore },
  submission: {
    readonly namespace: Namespace;
    readonly fields: Pick<BuildFields, 'context_id'>;
    readonly scratch: { readonly path: string };
    readonly signal: AbortSignal;
  },
): Promise<{ readonly file: string; readonly sizeBytes: number; readonly sha256: string } | undefined> {
  const { namespace, fields, scratch, signal } = submission;
  const { context_id: contextId } = fields;
  if (contextId === undefined) return undefined;
  const { stream, tarBytes } = await openContextArchive(stores, namespace, contextId, signal);
  const file = join(scratch.path, 'context-of-files');
  await pipeline(stream, createWriteStream(file, { flags: 'wx', mode: 0o600 }), { signal });
  return { file, sizeBytes: tarBytes, sha256: contextId };
}

async function* closing(stream: AsyncIterable<Uint8Array>, cursor: ObjectCursor): AsyncGenerator<Uint8Array, void> {
  try {
    yield* stream;
  } finally {
    await cursor.close();
  }
}

function entryOf(told: ContextManifestEntry): ContextEntry {
  const { path, path_bytes: pathBytes, type, mode } = told;
  const common = { path, ...(pathBytes === undefined ? {} : { pathBytes: Buffer.from(pathBytes, 'base64') }), mode };
  if (told.type === 'file') return { ...common, type: 'file', sizeBytes: told.size_bytes };
  if (told.type === 'directory') return { ...common, type: 'directory', sizeBytes: 0 };
  const { link_target: linkTarget, link_target_bytes: bytes } = told;
  const target = { linkTarget, ...(bytes === undefined ? {} : { linkTargetBytes: Buffer.from(bytes, 'base64') }) };
  return { ...common, type: type === 'symlink' ? 'symlink' : 'hardlink', sizeBytes: 0, ...target };
}

/** Bytes that are read over rather than the object opened again. */
const READ_OVER_BYTES = 256 * 1024;

/** Reads files that mostly follow each other in the same object, as they were sent, in one go. */
class ObjectCursor {
  readonly #store: ObjectStore;
  readonly #signal: AbortSignal | undefined;
  #open: { readonly key: string; readonly bytes: AsyncIterator<Uint8Array>; at: number } | undefined;
  #rest: Uint8Array = new Uint8Array();

  constructor(store: ObjectStore, signal: AbortSignal | undefined) {
    this.#store = store;
    this.#signal = signal;
  }

  async *read(file: ContextFileLocation): AsyncGenerator<Uint8Array, void> {
    if (file.sizeBytes === 0) return;
    const skip = file.offset - (this.#open?.at ?? 0);
    if (this.#open?.key !== file.objectKey || skip < 0 || skip > READ_OVER_BYTES) await this.#reopen(file);
    else await this.#skip(skip);
    for (let left = file.sizeBytes; left > 0;) {
      const piece = await this.#take(left);
      left -= piece.length;
      yield piece;
    }
  }

  async close(): Promise<void> {
    await this.#open?.bytes.return?.();
    this.#open = undefined;
  }

  async #reopen(file: ContextFileLocation): Promise<void> {
    await this.close();
    const range = { offset: file.offset, lengthBytes: file.objectBytes - file.offset };
    const stream = this.#store.stream(file.objectKey, { range, signal: this.#signal });
    this.#open = { key: file.objectKey, bytes: stream[Symbol.asyncIterator](), at: file.offset };
    this.#rest = new Uint8Array();
  }

  async #skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0;) left -= (await this.#take(left)).length;
  }

  async #take(most: number): Promise<Uint8Array> {
    const open = this.#open!;
    while (this.#rest.length === 0) {
      const { done, value } = await open.bytes.next();
      if (done === true) throw new DecantError('INTERNAL', `The object ${open.key} is shorter than it was.`);
      this.#rest = value;
    }
    const piece = this.#rest.subarray(0, most);
    this.#rest = this.#rest.subarray(piece.length);
    open.at += piece.length;
    return piece;
  }
}
