import { createHash } from 'node:crypto';
import { mkdtemp, open, readdir, readlink, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';

import { createMemoryRandomAccess, openChunk, packFrame, readPackTable, type ImagePiece } from '@decant/cas';
import { DecantError, MIB } from '@decant/core';
import { problemResponse } from '@decant/transport';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';

import { openPlatform, type Platform } from './platform.fixture.ts';
import { publishArchive } from './publish-archive.ts';
import { publishStreaming, type StreamingImageFacts } from './publish-streaming.ts';

let directory: string;
let platform: Platform;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'publish-test-'));
  platform = await openPlatform(directory);
});
afterEach(async () => {
  // However a publication ends, it leaves nothing behind.
  expect(await readdir(directory)).toEqual([]);
  await rm(directory, { recursive: true, force: true });
});

/** Bytes that do not compress. */
function noise(seed: number, lengthBytes: number): Uint8Array {
  const words = new Uint32Array(lengthBytes / 4);
  let state = seed;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state >>> 0;
  }
  return new Uint8Array(words.buffer);
}

/** An image of stretches that each begin with a cut; a number is a hole in bytes. */
function factsOf(
  stretches: readonly (Uint8Array | number)[],
  change: Partial<StreamingImageFacts> = {},
): StreamingImageFacts {
  const pieces = async function* (): AsyncGenerator<ImagePiece> {
    for (const stretch of stretches) {
      if (typeof stretch === 'number') yield { type: 'zeros', lengthBytes: stretch };
      else {
        yield { type: 'cut' };
        yield { type: 'data', bytes: stretch };
      }
    }
  };
  return {
    name: 'app:latest',
    pieces: pieces(),
    expectedBytes: 0,
    filesystem: 'raw',
    layout: 'hinted',
    architecture: null,
    config: null,
    diskBytes: 0,
    ...change,
  };
}

const packs = async () => {
  const keys: string[] = [];
  for await (const { key } of platform.store.list('ns/t/staging/')) if (key.includes('/packs/')) keys.push(key);
  return keys;
};
const asked = (path: string) => platform.requests.filter((request) => request.endsWith(path)).length;

/** Files of this test that are open in this process, also those that are removed already. */
async function openFiles(): Promise<string[]> {
  const links = (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ''));
  return (await Promise.all(links)).filter((path) => path.startsWith(directory));
}

describe('an image in chunks', () => {
  const base = [noise(1, MIB), noise(2, MIB), 4 * MIB, noise(3, MIB), noise(1, MIB)];

  it('travels once: chunks that occur twice, holes and what the server has do not', async () => {
    const first = await publishStreaming(factsOf(base), platform.context);
    expect(first).toMatchObject({ virtualBytes: 8 * MIB, contentBytes: 4 * MIB });
    expect(first.uploadedBytes).toBe(platform.bytesIn);
    expect(platform.bytesIn).toBeGreaterThan(3 * MIB);
    expect(platform.bytesIn).toBeLessThan(3.02 * MIB);

    platform.bytesIn = 0;
    const again = await publishStreaming(factsOf(base), platform.context);
    expect(again.template.imageId).toBe(first.template.imageId);
    expect(platform.bytesIn).toBeLessThan(4096);
    // The name's own manifest has told everything.
    expect(asked('/v1/chunks/missing')).toBe(1);

    platform.bytesIn = 0;
    await publishStreaming(factsOf([...base, noise(4, MIB)], { name: 'other' }), platform.context);
    expect(platform.bytesIn).toBeGreaterThan(MIB);
    expect(platform.bytesIn).toBeLessThan(1.02 * MIB);
  });

  it('is staged as it is while the chunks after it are gathered, and nothing is kept of a pack that was sent', async () => {
    // Five batches; every second chunk compresses.
    const random = noise(1, MIB);
    const stretches = Array.from({ length: 18 }, (_, i) =>
      random.map((byte, at) => (at === 0 || (i % 2 === 1 && at > MIB / 4) ? i : byte)),
    );
    // The system may take less than it is given.
    const probe = await open(join(directory, 'probe'), 'w');
    await probe.close();
    await rm(join(directory, 'probe'));
    const short = vi.spyOn(Object.getPrototypeOf(probe) as FileHandle, 'writev').mockImplementation(async function (
      this: FileHandle,
      parts: readonly Uint8Array[],
    ) {
      return { ...(await this.write(parts[0]!.subarray(0, 300_000))), buffers: parts };
    } as FileHandle['writev']);
    onTestFinished(() => {
      short.mockRestore();
    });
    const kept: string[][] = [];
    platform.intercept = async (request) => {
      if (request.method === 'PUT' && request.url.includes('/manifest')) {
        kept.push((await readdir(directory, { recursive: true })).filter((path) => path.includes('pack-')));
      }
      return undefined;
    };
    await publishStreaming(factsOf(stretches), platform.context);
    expect(kept).toEqual([[]]);
    const { hash, codec } = platform.context;
    const found: string[] = [];
    for (const key of await packs()) {
      const pack = createMemoryRandomAccess(await platform.store.get(key));
      for (const row of (await readPackTable(pack, { hash })).rows()) {
        // Its bytes hash to its id.
        openChunk(await packFrame(pack, row), row, { hash, codec });
        found.push(row.id);
      }
    }
    expect(short).toHaveBeenCalled();
    expect(new Set(found)).toEqual(platform.chunks);
    expect(found.length).toBe(platform.chunks.size);
  });

  it('carries its configuration, whose digest is in its id', async () => {
    const config = { architecture: 'amd64', config: { Cmd: ['/bin/sh'] } };
    const plain = await publishStreaming(factsOf(base), platform.context);
    const configured = await publishStreaming(factsOf(base, { config }), platform.context);
    expect(configured.template.imageId).not.toBe(plain.template.imageId);
    expect(Buffer.from(await platform.store.get('ns/t/staging/b2/config.json')).toString()).toBe(
      '{"architecture":"amd64","config":{"Cmd":["/bin/sh"]}}',
    );
  });

  it('is admitted although the name moves while it is uploaded', async () => {
    await publishStreaming(factsOf(base), platform.context);
    let moved = false;
    platform.intercept = async (request) => {
      if (moved || !request.url.endsWith('/v1/chunks/missing')) return undefined;
      moved = true;
      await publishStreaming(factsOf([noise(9, MIB)]), platform.context);
      return undefined;
    };
    const second = await publishStreaming(factsOf([...base, noise(5, MIB)]), platform.context);
    expect(moved).toBe(true);
    expect(second.template.name).toBe('app:latest');
  });

  it('fails with the reason of a server that refuses, and is not sent again', async () => {
    platform.intercept = (request) =>
      request.url.endsWith('/complete')
        ? problemResponse(new DecantError('INGEST_REFUSED', 'It was not admitted.', { hint: 'Build it again.' }))
        : undefined;
    await expect(publishStreaming(factsOf(base), platform.context)).rejects.toMatchObject({
      code: 'INGEST_REFUSED',
      message: 'It was not admitted.',
      hint: 'Build it again.',
    });
    expect(asked('/complete')).toBe(1);
  });

  it('follows a build that is admitted in the background, and shows how far it is', async () => {
    let polls = 0;
    let template: unknown;
    platform.intercept = async (request) => {
      if (request.method === 'GET' && request.url.endsWith('/b1')) {
        const status = ++polls < 3 ? 'ingesting' : 'completed';
        return Response.json({
          buildId: 'b1',
          status,
          progress: { bytes: polls, totalBytes: 3 },
          ...(status === 'completed' ? { template } : {}),
        });
      }
      if (!request.url.endsWith('/b1/complete')) return undefined;
      const inner = platform.intercept;
      platform.intercept = () => undefined;
      template = await (await platform.context.fetch(request)).json();
      platform.intercept = inner;
      return Response.json({ buildId: 'b1', status: 'ingesting' }, { status: 202 });
    };
    const seen: number[] = [];
    const result = await publishStreaming(factsOf(base), {
      ...platform.context,
      onEvent: (event) => {
        if (event.type === 'stage-progress' && event.stage === 'admit') seen.push(event.bytes ?? -1);
      },
    });
    expect(result.template).toEqual(template);
    expect(seen).toEqual([1, 2]);
  });

  it.each([
    [{ buildId: 'b1', status: 'failed', error: 'Broken.', problem: { code: 'ROOTFS_INVALID' } }, 'ROOTFS_INVALID'],
    [{ buildId: 'b1', status: 'failed' }, 'INGEST_REFUSED'],
    [{ buildId: 'b1', status: 'failed', problem: { code: 'NEVER_HEARD_OF' } }, 'INGEST_REFUSED'],
    [{ buildId: 'b1', status: 'completed' }, 'INGEST_REFUSED'],
    [{ buildId: 'b1', status: 'dreaming' }, 'HTTP_BODY_INVALID'],
  ])('fails when the build says %j', async (body, code) => {
    platform.intercept = (request) =>
      request.url.endsWith('/complete') ? Response.json(body, { status: 202 }) : undefined;
    await expect(publishStreaming(factsOf([noise(1, MIB)]), platform.context)).rejects.toMatchObject({ code });
  });

  it('fails when the server says it admitted another image', async () => {
    platform.intercept = async (request) => {
      if (!request.url.endsWith('/complete')) return undefined;
      platform.intercept = () => undefined;
      const template = (await (await platform.context.fetch(request)).json()) as object;
      return Response.json({ ...template, imageId: `cas-v1:${'0'.repeat(64)}` });
    };
    await expect(publishStreaming(factsOf(base), platform.context)).rejects.toMatchObject({
      code: 'HTTP_BODY_INVALID',
    });
  });

  it('drops the upload it has begun when a part cannot be sent', async () => {
    platform.intercept = (request) =>
      request.method === 'PUT' ? new Response('<Error><Code>AccessDenied</Code></Error>', { status: 403 }) : undefined;
    await expect(publishStreaming(factsOf(base), platform.context)).rejects.toMatchObject({ code: 'SIGN_URL_INVALID' });
    expect(platform.requests.filter((request) => request.startsWith('DELETE /objects/'))).toHaveLength(1);
    expect(asked('/complete')).toBe(0);
    expect(await packs()).toEqual([]);
  });

  it('ends what is on its way when the image itself fails, and when it is aborted', async () => {
    // One staging pack is full, and on its way, before the last piece is read.
    const stretches = Array.from({ length: 70 }, (_, i) => noise(i + 1, MIB));
    const fail = new Error('the layer is broken');
    for (const how of ['throw', 'abort'] as const) {
      const controller = new AbortController();
      let stopped = false;
      let begun: () => void = () => undefined;
      const sending = new Promise<void>((resolve) => (begun = resolve));
      // A request that nothing refers to may be collected, and its signal then tells nobody.
      const held: Request[] = [];
      const dropping = Promise.withResolvers<void>();
      const dropped = Promise.withResolvers<void>();
      platform.intercept = async (request) => {
        if (request.method === 'DELETE') {
          dropping.resolve();
          await dropped.promise;
        }
        if (request.method !== 'PUT') return undefined;
        held.push(request);
        begun();
        return new Promise((_, reject) => {
          request.signal.addEventListener('abort', () => {
            stopped = true;
            reject(request.signal.reason);
          });
        });
      };
      const facts = factsOf(stretches);
      const pieces = async function* (): AsyncGenerator<ImagePiece> {
        yield* facts.pieces;
        await sending;
        if (how === 'abort') controller.abort(fail);
        throw fail;
      };
      let ended = false;
      const publishing = publishStreaming(
        { ...facts, pieces: pieces() },
        { ...platform.context, signal: controller.signal },
      ).finally(() => (ended = true));
      const failed = expect(publishing).rejects.toBe(fail);
      await dropping.promise;
      // It does not end before what it began has.
      for (let turn = 0; turn < 100; turn++) await setImmediate();
      expect(ended).toBe(false);
      dropped.resolve();
      await failed;
      expect(await openFiles()).toEqual([]);
      expect(held).not.toEqual([]);
      expect(stopped).toBe(true);
    }
    expect(asked('/complete')).toBe(0);
    expect(await packs()).toEqual([]);
  });
});

describe('an image of one object', () => {
  it('is not announced when its file is not there', async () => {
    const facts = {
      name: 'a',
      file: join(directory, 'none'),
      contentBytes: 0,
      config: null,
      diskBytes: 0,
      layout: 'hinted' as const,
    };
    await expect(publishArchive(facts, platform.context)).rejects.toThrow(/ENOENT/);
    expect(platform.requests).toEqual([]);
  });

  it('is sent as zstd with its configuration, and must be admitted under its own digest', async () => {
    const file = join(directory, 'disk.ext4');
    await writeFile(file, Buffer.alloc(8 * MIB, 'a'));
    platform.intercept = (request) =>
      request.url.endsWith('/complete')
        ? problemResponse(new DecantError('ROOTFS_INVALID', 'e2fsck finds it broken.'))
        : undefined;
    const facts = {
      name: 'a',
      file,
      contentBytes: 0,
      config: { os: 'linux' },
      diskBytes: 0,
      layout: 'hinted' as const,
    };
    await expect(publishArchive(facts, platform.context)).rejects.toMatchObject({ code: 'ROOTFS_INVALID' });
    const staged = await platform.store.get('ns/t/staging/b1/rootfs.ext4.zst');
    expect(staged.length).toBeLessThan(10_000);
    expect(Buffer.from(await platform.store.get('ns/t/staging/b1/config.json')).toString()).toBe('{"os":"linux"}');
    let imageId = '';
    platform.intercept = async (request) => {
      if (!request.url.endsWith('/complete')) return undefined;
      const { snapshotUri, snapshotSizeBytes } = (await request.json()) as Record<string, unknown>;
      return Response.json({
        ...{
          id: 'b',
          name: 'a',
          snapshotId: 's',
          snapshotUri,
          snapshotFormatVersion: 'durable_archive_v1',
          snapshotSizeBytes,
        },
        ...{ rootfsDiskBytes: 0, rootfsNodeKind: 'base', public: false, imageId },
      });
    };
    const digest = createHash('sha256')
      .update(Buffer.alloc(8 * MIB, 'a'))
      .digest('hex');
    imageId = `sha256:${'0'.repeat(64)}`;
    await expect(publishArchive(facts, platform.context)).rejects.toMatchObject({
      code: 'HTTP_BODY_INVALID',
      details: { expected: `sha256:${digest}`, admitted: imageId },
    });
    imageId = `sha256:${digest}`;
    expect(await publishArchive(facts, platform.context)).toMatchObject({
      template: { imageId },
      virtualBytes: 8 * MIB,
      uploadedBytes: staged.length,
    });
    await rm(file);
  });
});
