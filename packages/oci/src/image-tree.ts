import { DecantError, quote } from '@decant/core';

import { expectBlob, readChecked, type BlobSource } from './blob-source.ts';
import { checked, sha256 } from './digest.ts';
import { indexSchema, manifestSchema, parseDocument, type Descriptor } from './documents.ts';
import { parseConfig, platformOf, type ImageDocument, type OpenImageOptions } from './image.ts';
import { limitError, type OciLimits } from './limits.ts';
import { isConfigType, isForeignType, isIndexType, isManifestType, OCI_INDEX } from './media-types.ts';
import type { Platform } from './platform.ts';
import { chooseEntries, expectMediaType, MAX_DEPTH, MAX_DOCUMENTS } from './select.ts';
import type { StoredBlob, StoredDocument } from './stored-image.ts';

/**
 * What a name stands for, whole: an index with the images of all platforms and what else it names, or one image.
 * Its documents are checked, its blobs when they are read; layers are not looked into.
 */
export interface ImageTree extends AsyncDisposable {
  /** The name that was asked for or, without one, its first name in the source; undefined when it has none. */
  readonly reference: string | undefined;
  readonly tags: readonly string[];
  /** The index or manifest that is named. */
  readonly top: StoredDocument;
  /** Indexes and manifests below it, each after those it names. */
  readonly inner: readonly StoredDocument[];
  readonly blobs: readonly StoredBlob[];
  readonly platforms: readonly Platform[];
  /** Bytes of all blobs. */
  readonly totalBytes: number;
}

/** The tree that an `index.json` and its blobs hold; `dispose` gives the source up. */
export async function treeFromIndex(
  source: BlobSource,
  indexBytes: Uint8Array,
  limits: OciLimits,
  options: OpenImageOptions,
  dispose: () => Promise<void>,
): Promise<ImageTree> {
  const index = parseDocument(indexBytes, indexSchema, 'The file index.json');
  const { entries, tags, reference } = chooseEntries(index, options.tag);
  const collector = new Collector(source, limits, options);
  for (const entry of entries) await collector.add(entry, 0);
  const { documents, blobs, platforms } = collector;
  const inner = [...documents.values()];
  // Entries without a name beside each other are the platforms of one image, whose index the source leaves out.
  const distinct = new Map(entries.map((entry) => [entry.digest, entry]));
  const top = distinct.size === 1 ? documents.get(entries[0]!.digest)! : indexOf([...distinct.values()]);
  return {
    reference,
    tags,
    top,
    inner: inner.filter(({ digest }) => digest !== top.digest),
    blobs: [...blobs.values()],
    platforms,
    totalBytes: [...blobs.values()].reduce((total, { sizeBytes }) => total + sizeBytes, 0),
    [Symbol.asyncDispose]: dispose,
  };
}

function indexOf(manifests: readonly Descriptor[]): StoredDocument {
  const bytes = new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
  return { mediaType: OCI_INDEX, bytes, digest: sha256(bytes) };
}

class Collector {
  readonly documents = new Map<string, StoredDocument>();
  readonly blobs = new Map<string, StoredBlob>();
  readonly platforms: Platform[] = [];
  readonly #source: BlobSource;
  readonly #limits: OciLimits;
  readonly #options: OpenImageOptions;

  constructor(source: BlobSource, limits: OciLimits, options: OpenImageOptions) {
    this.#source = source;
    this.#limits = limits;
    this.#options = options;
  }

  async add(descriptor: Descriptor, depth: number): Promise<void> {
    const { digest, mediaType } = descriptor;
    if (this.documents.has(digest)) return;
    if (depth > MAX_DEPTH || this.documents.size >= MAX_DOCUMENTS) {
      throw new DecantError('LIMIT_EXCEEDED', 'The image has indexes that are nested too deep or too many.');
    }
    const isIndex = isIndexType(mediaType);
    if (!isIndex && !isManifestType(mediaType)) {
      throw new DecantError('OCI_UNSUPPORTED', `The index names something of the type ${quote(mediaType)}.`, {
        details: { digest, mediaType },
      });
    }
    const what = `The ${isIndex ? 'index' : 'manifest'} ${digest}`;
    const bytes = await readChecked(this.#source, descriptor, what, this.#limits.documentBytes, this.#options);
    if (isIndex) {
      const index = parseDocument(bytes, indexSchema, what);
      expectMediaType(index.mediaType, mediaType, what);
      for (const entry of index.manifests) await this.add(entry, depth + 1);
    } else {
      await this.#addImage({ mediaType, bytes }, what);
    }
    // After what it names: a registry takes a document only when all that is there.
    this.documents.set(digest, { mediaType, bytes, digest });
  }

  async #addImage({ mediaType, bytes }: ImageDocument, what: string): Promise<void> {
    const manifest = parseDocument(bytes, manifestSchema, what);
    expectMediaType(manifest.mediaType, mediaType, what);
    const { layers, config } = manifest;
    if (layers.length > this.#limits.layers) {
      throw limitError(`${what} has ${layers.length} layers, the limit is ${this.#limits.layers}.`, {
        name: 'layers',
        value: this.#limits.layers,
      });
    }
    for (const [i, layer] of layers.entries()) {
      // Its bytes lie elsewhere by agreement, and nobody expects them to be copied.
      if (!isForeignType(layer.mediaType)) await this.#addBlob(layer, `Layer ${i + 1} of ${layers.length}`);
    }
    await this.#addBlob(config, 'The configuration');
    if (!isConfigType(config.mediaType)) return;
    const { documentBytes } = this.#limits;
    const document = await readChecked(this.#source, config, 'The configuration', documentBytes, this.#options);
    const platform = platformOf(parseConfig(document, 'The configuration'));
    if (platform.os !== 'unknown') this.platforms.push(platform);
  }

  async #addBlob(descriptor: Descriptor, what: string): Promise<void> {
    const { digest, size: sizeBytes } = descriptor;
    const known = this.blobs.get(digest);
    if (known !== undefined && known.sizeBytes === sizeBytes) return;
    await expectBlob(this.#source, descriptor, what);
    this.blobs.set(digest, {
      digest,
      sizeBytes,
      read: (options) =>
        checked(this.#source.read(descriptor, options), { digest, sizeBytes, what: `The blob ${digest}` }),
    });
  }
}
