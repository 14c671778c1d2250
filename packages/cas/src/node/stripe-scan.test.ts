import { mkdtemp, open, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { MIB, PAGE_BYTES, toHex, type ChunkId } from '@decant/core';
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { chunkImage } from '../chunk/chunker.ts';
import { createManifestBuilder, type ManifestStretch } from '../manifest/manifest-builder.ts';
import { FACTS } from '../test-data.ts';
import { loadNodeHashProvider } from './node-hash-provider.ts';
import { scanFile } from './scan-file.ts';
import { StripeScanner, stripeCount } from './stripe-scan.ts';
import { edgyImage, extent, piecesOf, STRIPE, writeSparse, type Extent } from './test-image.ts';

const hash = await loadNodeHashProvider();
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-stripes-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function manifestOf(stretches: AsyncIterable<ManifestStretch>): Promise<Uint8Array> {
  const builder = createManifestBuilder({ ...FACTS, layout: 'foreign' }, hash);
  for await (const stretch of stretches) builder.add(stretch);
  return builder.finish().bytes;
}

const whole = (extents: readonly Extent[], sizeBytes: number) =>
  manifestOf(chunkImage(piecesOf(extents, sizeBytes), { layout: 'foreign', hash }));

async function* byStripes(path: string, sizeBytes: number): AsyncGenerator<ManifestStretch> {
  await using file = await open(path, 'r');
  const scanner = await StripeScanner.open({ fd: file.fd, sizeBytes }, hash);
  for (let stripe = 0; stripe < stripeCount(sizeBytes); stripe++) {
    for (const stretch of scanner.scan(stripe, () => undefined)) {
      if (stretch.type === 'hole') yield stretch;
      else yield { type: 'chunk', id: toHex(stretch.id) as ChunkId, lengthBytes: stretch.bytes.length };
    }
  }
}

it('gives the chunks of one pass over the whole image, wherever zeros meet the edge of a stripe', async () => {
  const path = join(folder, 'edges');
  const runs = fc.array(fc.record({ zeros: fc.nat(7), data: fc.integer({ min: 1, max: 30 }) }), { maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(runs, fc.nat(40), fc.nat(12), fc.nat(PAGE_BYTES), async (runs, back, rest, odd) => {
      const extents: Extent[] = [];
      let page = STRIPE - back;
      for (const [i, { zeros, data }] of runs.entries()) {
        extents.push(extent(page + zeros, data, i + 1));
        page += zeros + data;
      }
      const end = Math.max(page, STRIPE - 4) * PAGE_BYTES;
      const sizeBytes = Math.max(end, end + rest * PAGE_BYTES - odd);
      await writeSparse(path, extents, sizeBytes);
      expect(await manifestOf(byStripes(path, sizeBytes))).toEqual(await whole(extents, sizeBytes));
    }),
    { numRuns: 40 },
  );
});

it('does not depend on the number of workers', async () => {
  const { extents, sizeBytes } = edgyImage();
  const path = join(folder, 'workers');
  await writeSparse(path, extents, sizeBytes);
  const expected = await whole(extents, sizeBytes);
  for (const workers of [1, 2, 3]) expect(await manifestOf(scanFile(path, { workers }))).toEqual(expected);
});

it('scans nothing in an empty file', async () => {
  const path = join(folder, 'empty');
  await writeSparse(path, [], 0);
  const all: unknown[] = [];
  for await (const stretch of scanFile(path)) all.push(stretch);
  expect(all).toEqual([]);
});

it('stays a bounded number of stripes ahead of whoever reads', async () => {
  const path = join(folder, 'ahead');
  await writeSparse(path, [extent(0, 4, 1)], 24 * 64 * MIB);
  let scanned = 0;
  const onEvent = (event: { type: string; bytes?: number }) => {
    if (event.type === 'stage-progress') scanned = event.bytes!;
  };
  const ids: ChunkId[] = [];
  for await (const stretch of scanFile(path, { workers: 2, onEvent })) {
    if (stretch.type === 'hole') continue;
    ids.push(stretch.id);
    // Long enough for all 24 stripes, if nothing held the workers back.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(scanned).toBeGreaterThan(0);
    expect(scanned).toBeLessThanOrEqual(4 * 64 * MIB);
  }
  expect(ids).toHaveLength(1);
  expect(scanned).toBe(24 * 64 * MIB);
});

it('says so when the file is not there, no file, shorter or changed', async () => {
  const all = async (path: string, first?: () => Promise<void>) => {
    for await (const _ of scanFile(path, { workers: 1 })) await first?.();
  };
  await expect(all(join(folder, 'nothing'))).rejects.toMatchObject({ code: 'CAS_FILE_UNREADABLE' });
  await expect(all(folder)).rejects.toMatchObject({ code: 'CAS_FILE_UNREADABLE' });
  const path = join(folder, 'changing');
  await writeSparse(path, [extent(0, 100, 1)], 10 * 64 * MIB);
  await expect(all(path, () => truncate(path, 5 * 64 * MIB))).rejects.toMatchObject({ code: 'CAS_FILE_CHANGED' });
  await expect(all(path, () => writeSparse(path, [extent(1, 100, 2)], 5 * 64 * MIB))).rejects.toMatchObject({
    code: 'CAS_FILE_CHANGED',
  });
});

it('fails with the cause when a worker dies or cannot start', async () => {
  const path = join(folder, 'dying');
  await writeSparse(path, [extent(0, 100, 1)], 64 * MIB);
  const scan = async (script: string) => {
    const workerUrl = new URL(`data:text/javascript,${encodeURIComponent(script)}`);
    for await (const _ of scanFile(path, { workers: 2, workerUrl })) throw new Error('there is nothing to be had');
  };
  const failed = { code: 'CAS_WORKER_FAILED' };
  await expect(scan('process.exit(3)')).rejects.toMatchObject({ ...failed, message: expect.stringContaining('3') });
  await expect(scan('throw new TypeError("boom")')).rejects.toMatchObject({
    ...failed,
    cause: expect.objectContaining({ message: 'boom' }),
  });
});
