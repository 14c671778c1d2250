import { DecantError, quote } from '@decant/core';

import type { Compression } from './decompress.ts';

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
export const DOCKER_INDEX = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json';

export const isIndexType = (type: string) => type === OCI_INDEX || type === DOCKER_INDEX;
export const isManifestType = (type: string) => type === OCI_MANIFEST || type === DOCKER_MANIFEST;
export const isConfigType = (type: string) => type === OCI_CONFIG || type === DOCKER_CONFIG;

/** Layers whose bytes are by agreement not in registries. */
export const isForeignType = (type: string) => /nondistributable|foreign/.test(type);

/** What to do with something of this type that was given as an image. */
export function notAnImageHint(type: string | undefined): string {
  return type?.startsWith('application/vnd.docker.distribution.manifest.v1') === true
    ? 'It has a manifest of the old schema 1: push it again with a current docker, podman or skopeo.'
    : 'Give the name of an image: signatures, attestations and other artifacts have no files to take.';
}

const LAYERS: Readonly<Record<string, Compression>> = {
  'application/vnd.oci.image.layer.v1.tar': 'none',
  'application/vnd.oci.image.layer.v1.tar+gzip': 'gzip',
  'application/vnd.oci.image.layer.v1.tar+zstd': 'zstd',
  'application/vnd.docker.image.rootfs.diff.tar': 'none',
  'application/vnd.docker.image.rootfs.diff.tar.gzip': 'gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd': 'zstd',
};

export const LAYER_TYPES: Readonly<Record<Compression, string>> = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
};

/** How a layer of a media type is compressed. @throws OCI_UNSUPPORTED for types whose layers cannot be read. */
export function layerCompression(mediaType: string): Compression {
  const compression = Object.hasOwn(LAYERS, mediaType) ? LAYERS[mediaType] : undefined;
  if (compression !== undefined) return compression;
  throw new DecantError(
    'OCI_UNSUPPORTED',
    isForeignType(mediaType)
      ? `A layer is of the type ${quote(mediaType)}: its bytes are not part of the image.`
      : `Layers of the type ${quote(mediaType)} are not supported.`,
    {
      details: { mediaType },
      hint: isForeignType(mediaType)
        ? 'Push the image again with all its layers, as docker does with allow-nondistributable-artifacts.'
        : 'Build or copy the image again with layers that are plain, gzip or zstd, for example with skopeo copy --format oci.',
    },
  );
}
