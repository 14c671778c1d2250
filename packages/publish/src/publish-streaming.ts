import {
  canonicalConfig,
  chunkImage,
  configDigest,
  createManifestBuilder,
  type ChunkCodec,
  type HashProvider,
  type ImagePiece,
  type ManifestFacts,
} from '@decant/cas';
import { DecantError, stage, STAGED, type Fetch, type ImageConfig, type OnEvent, type Template } from '@decant/core';
import { blobPartSource, uploadArtifact } from '@decant/dataplane';
import type { HttpClient } from '@decant/transport';

import { completeBuild } from './complete.ts';
import { chunksOfName } from './missing.ts';
import { prepareBuild, type PrepareFacts } from './prepare.ts';
import { ChunkStager } from './stager.ts';

export interface PublishContext {
  readonly client: HttpClient;
  readonly fetch: Fetch;
  readonly hash: HashProvider;
  readonly codec: ChunkCodec;
  readonly scratchDirectory: string;
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface StreamingImageFacts extends Omit<PrepareFacts, 'format'> {
  /** The disk image, from its first byte to its last. */
  readonly pieces: AsyncIterable<ImagePiece>;
  /** Bytes that the pieces will have in all; for showing progress. */
  readonly expectedBytes: number;
  readonly filesystem: ManifestFacts['format'];
  readonly layout: ManifestFacts['layout'];
  readonly architecture: ManifestFacts['architecture'];
  readonly config: ImageConfig | null;
  readonly diskBytes: number;
}

export interface PublishResult {
  readonly template: Template;
  readonly virtualBytes: number;
  readonly contentBytes: number;
  readonly uploadedBytes: number;
  readonly timingsMs: { readonly upload: number; readonly admit: number };
}

/**
 * Cuts a disk image into chunks, uploads those that the server lacks and has the image admitted and named.
 * The image is read once, while it is written; memory does not grow with it but for 40 bytes a chunk.
 */
export async function publishStreaming(facts: StreamingImageFacts, context: PublishContext): Promise<PublishResult> {
  const { client, fetch, hash, onEvent, signal } = context;
  const build = await prepareBuild(client, { ...facts, format: 'cas-streaming' }, signal);
  const prefix = build.snapshotRelPath;
  const uploadStarted = performance.now();
  const uploaded = await stage(onEvent, 'upload', async (finish) => {
    onEvent?.({ type: 'stage-progress', stage: 'upload', bytes: 0, totalBytes: facts.expectedBytes });
    const known = await chunksOfName(client, facts.name, hash, signal);
    await using stager = await ChunkStager.create({ ...context, prefix, known });
    const { filesystem: format, layout, architecture } = facts;
    const builder = createManifestBuilder(
      { format, layout, architecture, configDigest: configDigest(facts.config, hash) },
      hash,
    );
    for await (const stretch of chunkImage(facts.pieces, { layout, hash, signal })) {
      builder.add(stretch);
      if (stretch.type === 'chunk') await stager.offer(stretch.id, stretch.bytes);
    }
    await stager.finish();
    const manifest = builder.finish();
    const put = (name: string, bytes: Uint8Array) =>
      uploadArtifact({
        client,
        fetch,
        relPath: `${prefix}/${name}`,
        source: blobPartSource(Uint8Array.from(bytes)),
        signal,
      });
    const config = facts.config === null ? undefined : await put(STAGED.config, canonicalConfig(facts.config));
    const { uri, uploadedBytes } = await put(STAGED.manifest, manifest.bytes);
    const bytes = stager.uploadedBytes + uploadedBytes + (config?.uploadedBytes ?? 0);
    finish({ bytes, message: `of ${manifest.chunkCount} chunks` });
    return { uri, bytes, manifest };
  });
  const admitStarted = performance.now();
  const { manifest } = uploaded;
  const template = await stage(onEvent, 'admit', async (finish) => {
    const admitted = await completeBuild(
      client,
      build,
      { uri: uploaded.uri, virtualBytes: manifest.virtualBytes, diskBytes: facts.diskBytes, layout: facts.layout },
      { onEvent, signal },
    );
    if (admitted.imageId !== manifest.id) {
      throw new DecantError('HTTP_BODY_INVALID', 'The server admitted another image than the one that was uploaded.', {
        details: { expected: manifest.id, admitted: admitted.imageId },
      });
    }
    finish({ message: admitted.imageId });
    return admitted;
  });
  return {
    template,
    virtualBytes: manifest.virtualBytes,
    contentBytes: manifest.contentBytes,
    uploadedBytes: uploaded.bytes,
    timingsMs: {
      upload: Math.round(admitStarted - uploadStarted),
      admit: Math.round(performance.now() - admitStarted),
    },
  };
}
