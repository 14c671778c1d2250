import { createHash, randomBytes } from 'node:crypto';

import { concatBytes, toHex, type ObjectBody, type ObjectStore } from '@decant/core';

import { checkRange, objectNotFound, unknownUpload } from './object-errors.ts';
import { checkKey } from './object-key.ts';
import { checkPartNumber, fingerprintOf, partChanged, partMissing, sortParts } from './parts.ts';
import { piecesOf } from './pieces.ts';

interface Upload {
  readonly key: string;
  readonly parts: Map<number, { readonly etag: string; readonly bytes: Uint8Array }>;
}

const PIECE_BYTES = 1024 * 1024;

/** An object store in memory, for tests and for work that fits there. It forgets everything with the process. */
export function createMemoryObjectStore(): ObjectStore {
  const objects = new Map<string, Uint8Array>();
  const uploads = new Map<string, Upload>();

  const completed = new Map<string, { readonly fingerprint: string; readonly sizeBytes: number }>();

  const find = (key: string, signal?: AbortSignal): Uint8Array => {
    signal?.throwIfAborted();
    checkKey(key);
    const bytes = objects.get(key);
    if (bytes === undefined) throw objectNotFound(key);
    return bytes;
  };
  const uploadOf = (key: string, id: string): Upload => {
    checkKey(key);
    const upload = uploads.get(id);
    if (upload === undefined || upload.key !== key) throw unknownUpload();
    return upload;
  };

  return {
    async put(key, body, options = {}) {
      checkKey(key);
      const bytes = await gather(body, options.signal);
      objects.set(key, bytes);
      return { key, sizeBytes: bytes.length };
    },
    async get(key, options = {}) {
      const bytes = find(key, options.signal);
      const { offset, lengthBytes } = checkRange(options.range, bytes.length);
      return bytes.slice(offset, offset + lengthBytes);
    },
    async *stream(key, options = {}) {
      const bytes = find(key, options.signal);
      const { offset, lengthBytes } = checkRange(options.range, bytes.length);
      for (let at = offset; at < offset + lengthBytes; at += PIECE_BYTES) {
        options.signal?.throwIfAborted();
        yield bytes.slice(at, Math.min(at + PIECE_BYTES, offset + lengthBytes));
      }
    },
    async head(key, options = {}) {
      options.signal?.throwIfAborted();
      checkKey(key);
      const bytes = objects.get(key);
      return bytes === undefined ? undefined : { key, sizeBytes: bytes.length };
    },
    async delete(key, options = {}) {
      options.signal?.throwIfAborted();
      checkKey(key);
      objects.delete(key);
    },
    async *list(prefix, options = {}) {
      const keys = [...objects.keys()].filter((key) => key.startsWith(prefix));
      for (const key of keys.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
        options.signal?.throwIfAborted();
        const bytes = objects.get(key);
        if (bytes !== undefined) yield { key, sizeBytes: bytes.length };
      }
    },
    async createMultipart(key, options = {}) {
      options.signal?.throwIfAborted();
      checkKey(key);
      const id = toHex(randomBytes(16));
      uploads.set(id, { key, parts: new Map() });
      return id;
    },
    async putPart(key, uploadId, partNumber, body, options = {}) {
      checkPartNumber(partNumber);
      uploadOf(key, uploadId);
      const bytes = await gather(body, options.signal);
      const etag = createHash('sha256').update(bytes).digest('hex');
      uploadOf(key, uploadId).parts.set(partNumber, { etag, bytes });
      return { partNumber, etag };
    },
    async completeMultipart(key, uploadId, parts, options = {}) {
      options.signal?.throwIfAborted();
      const sorted = sortParts(parts);
      checkKey(key);
      const before = completed.get(uploadId);
      if (before?.fingerprint === fingerprintOf(key, sorted)) return { key, sizeBytes: before.sizeBytes };
      const upload = uploadOf(key, uploadId);
      const joined = concatBytes(
        sorted.map(({ partNumber, etag }) => {
          const part = upload.parts.get(partNumber);
          if (part === undefined) throw partMissing(partNumber);
          if (part.etag !== etag) throw partChanged(partNumber);
          return part.bytes;
        }),
      );
      uploads.delete(uploadId);
      objects.set(key, joined);
      completed.set(uploadId, { fingerprint: fingerprintOf(key, sorted), sizeBytes: joined.length });
      return { key, sizeBytes: joined.length };
    },
    async abortMultipart(key, uploadId, options = {}) {
      options.signal?.throwIfAborted();
      checkKey(key);
      if (uploads.get(uploadId)?.key === key) uploads.delete(uploadId);
    },
  };
}

async function gather(body: ObjectBody, signal?: AbortSignal): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of piecesOf(body, signal)) pieces.push(new Uint8Array(piece));
  return concatBytes(pieces);
}
