import { DecantError, quote } from '@decant/core';

import { expectBlob, readChecked, type BlobSource } from './blob-source.ts';
import { indexSchema, layoutSchema, parseDocument } from './documents.ts';
import {
  diffIdsOf,
  historyOf,
  parseConfig,
  platformOf,
  runConfig,
  type OciImage,
  type OpenImageOptions,
} from './image.ts';
import { createLayer, type LayerBlob } from './layer.ts';
import type { OciLimits } from './limits.ts';
import { isConfigType, isIndexType, layerCompression, notAnImageHint } from './media-types.ts';
import { chooseManifest, readManifest } from './select.ts';

/** Checks the file that says a directory or archive is an OCI layout. */
export function checkLayoutFile(bytes: Uint8Array): void {
  const { imageLayoutVersion } = parseDocument(bytes, layoutSchema, 'The file oci-layout');
  if (!imageLayoutVersion.startsWith('1.')) {
    throw new DecantError('OCI_UNSUPPORTED', `Layout version ${quote(imageLayoutVersion)} is not supported.`);
  }
}

/** The image that an `index.json` and its blobs hold; `dispose` gives the source up. */
export async function openFromIndex(
  source: BlobSource,
  indexBytes: Uint8Array,
  limits: OciLimits,
  options: OpenImageOptions,
  dispose: () => Promise<void>,
): Promise<OciImage> {
  const index = parseDocument(indexBytes, indexSchema, 'The file index.json');
  if (index.mediaType !== undefined && !isIndexType(index.mediaType)) {
    throw new DecantError('OCI_INVALID', `The file index.json calls itself ${quote(index.mediaType)}.`);
  }
  const { descriptor, tags, reference } = await chooseManifest(source, index, limits, options);
  const { manifest, bytes: manifestBytes } = await readManifest(source, descriptor, limits, options);
  if (!isConfigType(manifest.config.mediaType)) {
    throw new DecantError(
      'OCI_UNSUPPORTED',
      `The manifest is not of an image but of ${quote(manifest.config.mediaType)}.`,
      { hint: notAnImageHint(manifest.config.mediaType) },
    );
  }
  const configBytes = await readChecked(source, manifest.config, 'The configuration', limits.documentBytes, options);
  const config = parseConfig(configBytes, 'The configuration');
  const diffIds = diffIdsOf(config, manifest.layers.length, limits);
  const layers: LayerBlob[] = [];
  for (const [i, layer] of manifest.layers.entries()) {
    const compression = layerCompression(layer.mediaType);
    await expectBlob(source, layer, `Layer ${i + 1} of ${manifest.layers.length}`);
    layers.push(
      createLayer(
        {
          digest: layer.digest,
          diffId: diffIds[i]!,
          mediaType: layer.mediaType,
          compression,
          sizeBytes: layer.size,
          read: (readOptions) => source.read(layer, readOptions),
        },
        limits,
      ),
    );
  }
  return {
    reference,
    tags,
    platform: platformOf(config),
    config: runConfig(config),
    history: historyOf(config),
    layers,
    manifestDigest: descriptor.digest,
    configDigest: manifest.config.digest,
    documents: {
      manifest: { mediaType: descriptor.mediaType, bytes: manifestBytes },
      config: { mediaType: manifest.config.mediaType, bytes: configBytes },
    },
    totalBytes: manifest.layers.reduce((total, layer) => total + layer.size, 0),
    [Symbol.asyncDispose]: dispose,
  };
}
