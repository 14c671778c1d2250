import { DecantError } from '@decant/core';

import type { ReadOptions } from './blob-source.ts';
import { sha256 } from './digest.ts';
import type { ImageDocument, OciImage } from './image.ts';
import type { ImageTree } from './image-tree.ts';
import { OCI_MANIFEST } from './media-types.ts';

export interface StoredBlob {
  readonly digest: string;
  readonly sizeBytes: number;
  /** The bytes as stored, checked on the way. May be read again. */
  read(options?: ReadOptions): AsyncIterable<Uint8Array>;
}

export interface StoredDocument extends ImageDocument {
  readonly digest: string;
}

/** Something to copy: a manifest or index, what it names, and every blob they name, each once. */
export type StoredImage = Pick<ImageTree, 'top' | 'inner' | 'blobs'>;

/** A docker archive has no manifest; it gets one that names its layers as they are. */
export function storedImage(image: OciImage | ImageTree): StoredImage {
  if ('top' in image) return image;
  const { manifest: own, config } = image.documents;
  const manifest = own ?? makeManifest(image);
  const blobs = new Map<string, StoredBlob>();
  for (const layer of image.layers) blobs.set(layer.digest, layer);
  blobs.set(image.configDigest, {
    digest: image.configDigest,
    sizeBytes: config.bytes.length,
    async *read() {
      yield config.bytes;
    },
  });
  const digest = sha256(manifest.bytes);
  if (image.manifestDigest !== undefined && image.manifestDigest !== digest) {
    throw new DecantError('INTERNAL', `The manifest ${image.manifestDigest} was not kept as it is.`);
  }
  return { top: { ...manifest, digest }, inner: [], blobs: [...blobs.values()] };
}

function makeManifest(image: OciImage): ImageDocument {
  const { config } = image.documents;
  const document = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: config.mediaType, digest: image.configDigest, size: config.bytes.length },
    layers: image.layers.map(({ mediaType, digest, sizeBytes: size }) => ({ mediaType, digest, size })),
  };
  return { mediaType: OCI_MANIFEST, bytes: new TextEncoder().encode(JSON.stringify(document)) };
}
