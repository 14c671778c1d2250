import { DecantError, type ByteRange, type ObjectBody, type ObjectInfo, type ObjectStore } from '@decant/core';

import { gather } from './streams.ts';

/** The part of an object store that a registry uses, in memory. */
export class MemoryStore implements ObjectStore {
  readonly objects = new Map<string, Uint8Array>();

  async put(key: string, body: ObjectBody): Promise<ObjectInfo> {
    const bytes = body instanceof Uint8Array ? body : await gather(body);
    this.objects.set(key, bytes);
    return { key, sizeBytes: bytes.length };
  }

  async get(key: string, { range }: { range?: ByteRange | undefined } = {}): Promise<Uint8Array> {
    const bytes = this.objects.get(key);
    if (bytes === undefined) throw new DecantError('OBJECT_NOT_FOUND', `There is no object ${key}.`);
    return range === undefined ? bytes : bytes.subarray(range.offset, range.offset + range.lengthBytes);
  }

  async *stream(key: string, options: { range?: ByteRange | undefined } = {}): AsyncGenerator<Uint8Array> {
    const bytes = await this.get(key, options);
    for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    const bytes = this.objects.get(key);
    return bytes === undefined ? undefined : { key, sizeBytes: bytes.length };
  }

  async delete(key: string): Promise<void> {
    this.objects.delete(key);
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    for (const key of [...this.objects.keys()].sort()) {
      const bytes = this.objects.get(key);
      if (bytes !== undefined && key.startsWith(prefix)) yield { key, sizeBytes: bytes.length };
    }
  }

  createMultipart = unused;
  putPart = unused;
  completeMultipart = unused;
  abortMultipart = unused;
}

function unused(): never {
  throw new Error('A registry does not use multipart uploads.');
}
