import { isDecantError, type ObjectStore } from '@decant/core';
import { z } from 'zod';

import { digestHex, sha256 } from '../digest.ts';
import { descriptorSchema, descriptorsSchema, mediaTypeSchema, parseDocument } from '../documents.ts';
import { isForeignType, isIndexType, isManifestType, OCI_INDEX } from '../media-types.ts';
import { isTag } from '../reference.ts';
import { RegistryProblem } from './answers.ts';
import type { RegistryKeys } from './keys.ts';

/** A manifest or index as far as a registry looks into it. */
const documentSchema = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: mediaTypeSchema,
  artifactType: z.string().optional(),
  config: descriptorSchema.optional(),
  layers: descriptorsSchema.optional(),
  manifests: descriptorsSchema.optional(),
  subject: descriptorSchema.nullish(),
  annotations: z.record(z.string(), z.string()).nullish(),
});
type Document = z.infer<typeof documentSchema>;

export interface StoredManifest {
  readonly mediaType: string;
  readonly digest: string;
  readonly bytes: Uint8Array;
}

const MAX_REFERRERS = 1000;
const LINE_END = 0x0a;

/** The manifests and tags of repositories. */
export class Manifests {
  readonly #store: ObjectStore;
  readonly #keys: RegistryKeys;

  constructor(store: ObjectStore, keys: RegistryKeys) {
    this.#store = store;
    this.#keys = keys;
  }

  /** By tag or digest. */
  async get(repository: string, reference: string, signal: AbortSignal): Promise<StoredManifest> {
    const digest = await this.#digestOf(repository, reference, signal);
    const stored = digest === undefined ? undefined : await this.#read(this.#keys.manifest(repository, digest), signal);
    const end = stored?.indexOf(LINE_END) ?? -1;
    if (digest === undefined || stored === undefined || end < 0) throw unknown(reference);
    return { mediaType: new TextDecoder().decode(stored.subarray(0, end)), digest, bytes: stored.subarray(end + 1) };
  }

  /** Takes a manifest whose blobs and manifests the repository has. Returns its digest and that of its subject. */
  async put(
    repository: string,
    reference: string,
    mediaType: string,
    bytes: Uint8Array,
    signal: AbortSignal,
  ): Promise<{ readonly digest: string; readonly subject: string | undefined }> {
    const digest = sha256(bytes);
    const byDigest = reference.includes(':');
    if (byDigest && checkDigest(reference) !== digest) {
      throw new RegistryProblem('DIGEST_INVALID', `The manifest hashes to ${digest}.`);
    }
    if (!byDigest && !isTag(reference)) throw new RegistryProblem('TAG_INVALID', 'The tag is not valid.');
    const document = parse(bytes, mediaType);
    await this.#expectParts(repository, document, signal);
    const head = new TextEncoder().encode(`${mediaType}\n`);
    await this.#store.put(this.#keys.manifest(repository, digest), Buffer.concat([head, bytes]), { signal });
    // A collection that did not see the manifest yet may have taken a part away in between. It sees it now.
    await this.#expectParts(repository, document, signal);
    const subject = document.subject?.digest;
    if (subject !== undefined) {
      const descriptor = {
        mediaType,
        digest,
        size: bytes.length,
        artifactType: document.artifactType ?? document.config?.mediaType,
        annotations: document.annotations ?? undefined,
      };
      const key = `${this.#keys.referrers(repository, subject)}${digestHex(digest)}`;
      await this.#store.put(key, new TextEncoder().encode(JSON.stringify(descriptor)), { signal });
    }
    if (!byDigest) {
      await this.#store.put(this.#keys.tag(repository, reference), new TextEncoder().encode(digest), { signal });
    }
    return { digest, subject };
  }

  /** A tag alone; or a manifest with all its tags. */
  async delete(repository: string, reference: string, signal: AbortSignal): Promise<void> {
    if (!reference.includes(':')) {
      const key = isTag(reference) ? this.#keys.tag(repository, reference) : undefined;
      if (key === undefined || (await this.#store.head(key, { signal })) === undefined) throw unknown(reference);
      await this.#store.delete(key, { signal });
      return;
    }
    const { digest, bytes, mediaType } = await this.get(repository, reference, signal);
    for (const tag of await this.tags(repository, signal)) {
      if ((await this.#digestOf(repository, tag, signal)) === digest) {
        await this.#store.delete(this.#keys.tag(repository, tag), { signal });
      }
    }
    const { subject } = parse(bytes, mediaType);
    if (subject !== undefined && subject !== null) {
      await this.#store.delete(`${this.#keys.referrers(repository, subject.digest)}${digestHex(digest)}`, { signal });
    }
    await this.#store.delete(this.#keys.manifest(repository, digest), { signal });
  }

  /** Adds the digests of the blobs that the manifests of a repository name; reads only manifests that it has not `seen`. */
  async addNamedBlobs(
    repository: string,
    { named, seen }: { readonly named: Set<string>; readonly seen: Set<string> },
    signal: AbortSignal,
  ): Promise<void> {
    for await (const { key } of this.#store.list(this.#keys.manifests(repository), { signal })) {
      if (seen.has(key)) continue;
      const stored = await this.#read(key, signal);
      if (stored === undefined) continue;
      const end = stored.indexOf(LINE_END);
      const document = parse(stored.subarray(end + 1), new TextDecoder().decode(stored.subarray(0, end)));
      for (const { digest } of [document.config ?? [], document.layers ?? []].flat()) named.add(digest);
      seen.add(key);
    }
  }

  /** In byte order. */
  async tags(repository: string, signal: AbortSignal): Promise<string[]> {
    const prefix = this.#keys.tags(repository);
    const tags: string[] = [];
    for await (const { key } of this.#store.list(prefix, { signal })) tags.push(key.slice(prefix.length));
    return tags;
  }

  /** An index of the manifests whose subject this is. */
  async referrers(repository: string, subject: string, type: string | null, signal: AbortSignal): Promise<unknown> {
    const manifests: unknown[] = [];
    for await (const { key } of this.#store.list(this.#keys.referrers(repository, checkDigest(subject)), { signal })) {
      const bytes = await this.#read(key, signal);
      if (bytes === undefined) continue;
      const descriptor = JSON.parse(new TextDecoder().decode(bytes)) as { artifactType?: string };
      if (type === null || descriptor.artifactType === type) manifests.push(descriptor);
      if (manifests.length >= MAX_REFERRERS) break;
    }
    return { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
  }

  async #digestOf(repository: string, reference: string, signal: AbortSignal): Promise<string | undefined> {
    if (reference.includes(':')) return checkDigest(reference);
    if (!isTag(reference)) return undefined;
    const bytes = await this.#read(this.#keys.tag(repository, reference), signal);
    return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
  }

  /** What a manifest names must be there first, so that no tag ever points at a part of an image. */
  async #expectParts(repository: string, document: Document, signal: AbortSignal): Promise<void> {
    for (const { digest, size, mediaType } of [document.config ?? [], document.layers ?? []].flat()) {
      // Their bytes lie elsewhere by agreement.
      if (isForeignType(mediaType)) continue;
      const link = await this.#store.head(this.#keys.link(repository, checkDigest(digest)), { signal });
      const blob = link === undefined ? undefined : await this.#store.head(this.#keys.blob(digest), { signal });
      if (blob === undefined) throw new RegistryProblem('MANIFEST_BLOB_UNKNOWN', `There is no blob ${digest}.`);
      if (blob.sizeBytes !== size) {
        throw new RegistryProblem(
          'MANIFEST_INVALID',
          `The blob ${digest} has ${blob.sizeBytes} bytes and not ${size}.`,
        );
      }
    }
    for (const { digest } of document.manifests ?? []) {
      const key = this.#keys.manifest(repository, checkDigest(digest));
      if ((await this.#store.head(key, { signal })) === undefined) {
        throw new RegistryProblem('MANIFEST_BLOB_UNKNOWN', `There is no manifest ${digest}.`);
      }
    }
  }

  async #read(key: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
    try {
      return await this.#store.get(key, { signal });
    } catch (error) {
      if (isDecantError(error, 'OBJECT_NOT_FOUND')) return undefined;
      throw error;
    }
  }
}

function parse(bytes: Uint8Array, mediaType: string): Document {
  if (!isIndexType(mediaType) && !isManifestType(mediaType)) {
    throw new RegistryProblem(
      'MANIFEST_INVALID',
      'This registry takes OCI and Docker schema 2 manifests and indexes only.',
    );
  }
  let document: Document;
  try {
    document = parseDocument(bytes, documentSchema, 'The manifest');
  } catch (error) {
    if (isDecantError(error)) throw new RegistryProblem('MANIFEST_INVALID', error.message);
    throw error;
  }
  const isIndex = document.manifests !== undefined;
  const isManifest = document.config !== undefined && document.layers !== undefined;
  if (isIndex === isManifest || isIndex !== isIndexType(mediaType) || (document.mediaType ?? mediaType) !== mediaType) {
    throw new RegistryProblem('MANIFEST_INVALID', `The manifest is not of the type ${mediaType}.`);
  }
  return document;
}

/** @throws RegistryProblem for anything but a sha256 digest. */
export function checkDigest(digest: string): string {
  try {
    digestHex(digest);
    return digest;
  } catch {
    throw new RegistryProblem('DIGEST_INVALID', 'The digest is not a sha256 digest.');
  }
}

function unknown(reference: string): RegistryProblem {
  return new RegistryProblem('MANIFEST_UNKNOWN', `There is no manifest ${reference.slice(0, 128)}.`);
}
