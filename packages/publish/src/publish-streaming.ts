import {
  canonicalConfig,
  chunkImage,
  configDigest,
  createManifestBuilder,
  type HashProvider,
  type ImagePiece,
  type ManifestFacts,
  type ThreadedCodec,
} from '@decant/cas';
import {
  DecantError,
  stage,
  STAGED,
  type Fetch,
  type ImageConfig,
  type OnEvent,
  type PrepareResponse,
  type Template,
} from '@decant/core';
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
  readonly codec: ThreadedCodec;
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

/** An image whose chunks, configuration and manifest the server has, but not yet admitted. */
export interface StagedImage {
  readonly build: PrepareResponse;
  /** Of the manifest, as the server named it. */
  readonly uri: string;
  readonly id: string;
  readonly virtualBytes: number;
  readonly contentBytes: number;
  readonly diskBytes: number;
  readonly layout: ManifestFacts['layout'];
  readonly uploadedBytes: number;
  readonly uploadMs: number;
}

/**
 * Cuts a disk image into chunks, uploads those that the server lacks and has the image admitted and named.
 * The image is read once, while it is written; memory does not grow with it but for some 100 bytes a chunk.
 */
export async function publishStreaming(facts: StreamingImageFacts, context: PublishContext): Promise<PublishResult> {
  return await admitStaged(await stageStreaming(facts, context), context);
}

/** The first half of {@link publishStreaming}: what comes after it needs nothing that the pieces are made from. */
export async function stageStreaming(facts: StreamingImageFacts, context: PublishContext): Promise<StagedImage> {
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
    const { id, virtualBytes, contentBytes } = manifest;
    return { uri, uploadedBytes: bytes, id, virtualBytes, contentBytes };
  });
  const uploadMs = Math.round(performance.now() - uploadStarted);
  return { build, ...uploaded, diskBytes: facts.diskBytes, layout: facts.layout, uploadMs };
}

/** The second half: the server checks what was staged, and names it. */
export async function admitStaged(
  { build, uri, id, virtualBytes, contentBytes, diskBytes, layout, uploadedBytes, uploadMs }: StagedImage,
  { client, onEvent, signal }: PublishContext,
): Promise<PublishResult> {
  const admitStarted = performance.now();
  const template = await stage(onEvent, 'admit', async (finish) => {
    const admitted = await completeBuild(client, build, { uri, virtualBytes, diskBytes, layout }, { onEvent, signal });
    if (admitted.imageId !== id) {
      throw new DecantError('HTTP_BODY_INVALID', 'The server admitted another image than the one that was uploaded.', {
        details: { expected: id, admitted: admitted.imageId },
      });
    }
    finish({ message: admitted.imageId });
    return admitted;
  });
  return {
    template,
    virtualBytes,
    contentBytes,
    uploadedBytes,
    timingsMs: { upload: uploadMs, admit: Math.round(performance.now() - admitStarted) },
  };
}
