import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress } from 'node:zlib';

import { canonicalConfig } from '@decant/cas';
import { DecantError, MIB, stage, STAGED, type ImageConfig } from '@decant/core';
import { blobPartSource, filePartSource, uploadArtifact } from '@decant/dataplane';

import { completeBuild } from './complete.ts';
import { prepareBuild, type PrepareFacts } from './prepare.ts';
import type { PublishContext, PublishResult } from './publish-streaming.ts';

export interface ArchiveFacts extends Omit<PrepareFacts, 'format'> {
  /** A raw ext4 image. */
  readonly file: string;
  readonly contentBytes: number;
  readonly config: ImageConfig | null;
  readonly diskBytes: number;
  /** Whether decant's own writer made the image. */
  readonly layout: 'hinted' | 'foreign';
}

/** zstd level of the one object: raw ext4 images are mostly zeros and travel whole. */
const ZSTD_LEVEL = 3;

/** Uploads a raw ext4 image as one compressed object and has it admitted and named. */
export async function publishArchive(facts: ArchiveFacts, context: PublishContext): Promise<PublishResult> {
  const { client, fetch, scratchDirectory, onEvent, signal } = context;
  const { size: virtualBytes } = await stat(facts.file);
  const build = await prepareBuild(client, { ...facts, format: 'ext4' }, signal);
  const uploadStarted = performance.now();
  const uploaded = await stage(onEvent, 'upload', async (finish) => {
    const directory = await mkdtemp(join(scratchDirectory, 'stage-'));
    try {
      const compressed = join(directory, STAGED.archive);
      const digest = await compress(facts.file, compressed, virtualBytes, context);
      if (facts.config !== null) {
        await uploadArtifact({
          client,
          fetch,
          relPath: `${dirname(build.snapshotRelPath)}/${STAGED.config}`,
          source: blobPartSource(Uint8Array.from(canonicalConfig(facts.config))),
          signal,
        });
      }
      const source = await filePartSource(compressed);
      const { uri, uploadedBytes } = await uploadArtifact({
        client,
        fetch,
        relPath: build.snapshotRelPath,
        source,
        signal,
      });
      finish({ bytes: uploadedBytes });
      return { uri, bytes: uploadedBytes, digest };
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
  const admitStarted = performance.now();
  const template = await stage(onEvent, 'admit', async (finish) => {
    const { uri } = uploaded;
    const { diskBytes, layout } = facts;
    const admitted = await completeBuild(client, build, { uri, virtualBytes, diskBytes, layout }, context);
    if (admitted.imageId !== `sha256:${uploaded.digest}`) {
      throw new DecantError('HTTP_BODY_INVALID', 'The server admitted another image than the one that was uploaded.', {
        details: { expected: `sha256:${uploaded.digest}`, admitted: admitted.imageId },
      });
    }
    finish({ message: admitted.imageId });
    return admitted;
  });
  return {
    template,
    virtualBytes,
    contentBytes: facts.contentBytes,
    uploadedBytes: uploaded.bytes,
    timingsMs: {
      upload: Math.round(admitStarted - uploadStarted),
      admit: Math.round(performance.now() - admitStarted),
    },
  };
}

/** Compresses a file into another; returns the SHA-256 of the plain bytes as hex. */
async function compress(from: string, to: string, sizeBytes: number, context: PublishContext): Promise<string> {
  const { onEvent, signal } = context;
  const digest = createHash('sha256');
  let bytes = 0;
  const file = await open(to, 'wx', 0o600);
  await pipeline(
    createReadStream(from, { highWaterMark: MIB }),
    async function* (pieces: AsyncIterable<Buffer>) {
      for await (const piece of pieces) {
        digest.update(piece);
        bytes += piece.length;
        onEvent?.({ type: 'stage-progress', stage: 'upload', bytes, totalBytes: sizeBytes });
        yield piece;
      }
    },
    createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } }),
    file.createWriteStream(),
    ...(signal === undefined ? [] : [{ signal }]),
  );
  return digest.digest('hex');
}
