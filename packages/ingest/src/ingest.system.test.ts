import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';

import { chunkImage } from '@decant/cas';
import { findProgram, run } from '@decant/core/node';
import { planErofs, type DirectoryNode, type FileNode, type Metadata } from '@decant/rootfs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { ingestArchive } from './ingest-archive.ts';
import { ingestStreaming } from './ingest-streaming.ts';
import { archiveKey } from './object-keys.ts';
import { imageOf, noise, openBench, stageImage, type Bench } from './staging.fixture.ts';

const confined = (await findProgram('bwrap')) !== undefined;
const e2fsprogs =
  confined && (await findProgram('mkfs.ext4')) !== undefined && (await findProgram('e2fsck')) !== undefined;
const erofsUtils = confined && (await findProgram('fsck.erofs')) !== undefined;

let bench: Bench;
beforeEach(async () => {
  bench = await openBench();
});
afterEach(() => bench[Symbol.asyncDispose]());

describe.skipIf(!e2fsprogs)('[backend:e2fsprogs] an ext4 image', () => {
  const filesystem = async (): Promise<Buffer> => {
    const file = join(bench.directory, 'test.ext4');
    await run('mkfs.ext4', ['-q', file, '4M']);
    return readFile(file);
  };
  const admit = async (raw: Uint8Array, build: string) => {
    const context = bench.context('acme', build);
    await bench.store.put(`${context.stagingPrefix}/rootfs.ext4.zst`, zstdCompressSync(raw));
    return ingestArchive({ virtualBytes: raw.length, layout: 'hinted' }, context);
  };

  it('is admitted as the object that was staged', async () => {
    const raw = await filesystem();
    const admission = await admit(raw, 'build-1');
    expect(admission.id).toBe(`sha256:${createHash('sha256').update(raw).digest('hex')}`);
    expect(admission.record).toMatchObject({ format: 'ext4', virtualBytes: raw.length, chunks: null });
    expect(admission.record.contentBytes).toBeLessThan(raw.length / 4);
    const kept = await bench.store.get(archiveKey(bench.context().namespace, admission.id));
    expect(zstdDecompressSync(kept).equals(raw)).toBe(true);
  });

  it('is refused when e2fsck finds it broken, and leaves nothing', async () => {
    const raw = await filesystem();
    // The block bitmap follows superblock, descriptors and what is kept for growth; all of it is overwritten.
    raw.fill(0xa5, 8192, 2 * 1024 * 1024);
    await expect(admit(raw, 'build-1')).rejects.toMatchObject({ code: 'ROOTFS_INVALID' });
    await expect(admit(noise(1, 64), 'build-2')).rejects.toMatchObject({ code: 'ROOTFS_INVALID' });
    expect(await bench.restingKeys()).toEqual([]);
  });

  it('is checked as well when it is made of chunks', async () => {
    const raw = await filesystem();
    for (const [i, broken] of [false, true].entries()) {
      const context = bench.context('acme', `build-${i}`);
      if (broken) raw.fill(0xa5, 8192, 2 * 1024 * 1024);
      const stretches: (Uint8Array | number)[] = [];
      const pieces = async function* () {
        yield { type: 'data', bytes: raw } as const;
      };
      for await (const part of chunkImage(pieces(), { layout: 'foreign', hash: bench.hash })) {
        stretches.push(part.type === 'chunk' ? part.bytes.slice() : part.lengthBytes / 4096);
      }
      const image = imageOf(bench, stretches, { format: 'ext4' });
      await stageImage(context, image);
      const result = ingestStreaming({ virtualBytes: image.manifest.virtualBytes }, context);
      await (broken
        ? expect(result).rejects.toMatchObject({ code: 'ROOTFS_INVALID' })
        : expect(result).resolves.toMatchObject({ record: { filesystem: 'ext4', layout: 'foreign' } }));
    }
    expect((await readdir(bench.directory)).toSorted()).toEqual(['objects', 'test.ext4']);
  });
});

describe.skipIf(!erofsUtils)('[backend:erofs-utils] an EROFS image', () => {
  const meta: Metadata = { mode: 0o755, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanoseconds: 0, xattrs: [] };

  /** The stretches of a small image that decant's writer made. */
  const stretchesOf = async (): Promise<(Uint8Array | number)[]> => {
    const content = noise(5, 100);
    const file: FileNode = {
      kind: 'file',
      meta,
      sizeBytes: content.length,
      extents: [
        {
          fileOffset: 0,
          lengthBytes: content.length,
          blobOffset: 0,
          blob: { readSync: (target, at) => (target.set(content.subarray(at, at + target.length)), target.length) },
        },
      ],
    };
    const root: DirectoryNode = { kind: 'directory', meta, entries: new Map([['file', file]]) };
    const plan = await planErofs(root, { hash: bench.hash });
    const stretches: (Uint8Array | number)[] = [];
    for await (const part of chunkImage(plan.pieces(), { layout: 'hinted', hash: bench.hash })) {
      stretches.push(part.type === 'chunk' ? part.bytes.slice() : part.lengthBytes / 4096);
    }
    return stretches;
  };

  it('of our writer is admitted, and one with a broken inode is not', async () => {
    const stretches = await stretchesOf();
    const image = imageOf(bench, stretches, { format: 'erofs', layout: 'hinted', architecture: 'amd64' });
    await stageImage(bench.context(), image);
    const admission = await ingestStreaming({ virtualBytes: image.manifest.virtualBytes }, bench.context());
    expect(admission.record).toMatchObject({ filesystem: 'erofs', layout: 'hinted', architecture: 'amd64' });

    const context = bench.context('other', 'build-2');
    const broken = stretches.map((stretch) => (typeof stretch === 'number' ? stretch : stretch.slice()));
    const [metadata] = broken;
    if (!(metadata instanceof Uint8Array)) throw new Error('the image begins with a hole');
    metadata.fill(0xff, 1024 + 200, 4096);
    const hostile = imageOf(bench, broken, { format: 'erofs', layout: 'hinted', architecture: 'amd64' });
    await stageImage(context, hostile);
    await expect(ingestStreaming({ virtualBytes: hostile.manifest.virtualBytes }, context)).rejects.toMatchObject({
      code: 'ROOTFS_INVALID',
    });
    expect((await bench.restingKeys()).filter((key) => key.startsWith('ns/other/'))).toEqual([]);
  });
});
