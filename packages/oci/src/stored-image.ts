import { DecantError } from '@decant/core';

import type { ReadOptions } from './blob-source.ts';
import { sha256 } from './digest.ts';
import type { ImageDocument, OciImage } from './image.ts';
import { OCI_MANIFEST } from './media-types.ts';

export interface StoredBlob {
  readonly digest: string;
  readonly sizeBytes: number;
  /** The bytes as stored, checked on the way. May be read again. */
  read(options?: ReadOptions): AsyncIterable<Uint8Array>;
}

/** An image as something to copy: its manifest and every blob that the manifest names, each once. */
export interface StoredImage {
  readonly manifest: ImageDocument & { readonly digest: string };
  readonly blobs: readonly StoredBlob[];
}

/** A docker archive has no manifest; it gets one that names its layers as they are. */
export function storedImage(image: OciImage): StoredImage {
  const { manifest: own, config } = image.documents;
  const manifest = own ?? makeManifest(image);
  const blobs = new Map<string, StoredBlob>();
  for (const { digest, sizeBytes, read } of image.layers) blobs.set(digest, { digest, sizeBytes, read });
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
  return { manifest: { ...manifest, digest }, blobs: [...blobs.values()] };
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
