import { createWriteStream } from 'node:fs';
import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { packMemoryContext } from '@decant/context';
import { buildFieldsSchema, DecantError, type ObjectStore } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { acme, other, scripted, untilStopped, useImageBuilders } from './image-builder.fixture.ts';

const bench = useImageBuilders();
const { start, submit } = bench;
const waiting = { running: 0 };

describe('what is submitted to the image-builder', () => {
  it('is refused when its runner cannot run it, and leaves nothing', async () => {
    const why = new DecantError('BUILD_ISOLATION_UNAVAILABLE', 'not here');
    const builder = await start({ ...scripted(untilStopped), ready: () => Promise.reject(why) });
    await expect(submit(builder)).rejects.toBe(why);
    expect(await bench.keys()).toEqual([]);
  });

  it('leaves nothing when too many wait, or when the disk is full in the middle', async () => {
    const builder = await start(scripted(untilStopped), { ...waiting, queued: 1 });
    const { id } = await submit(builder);
    const kept = [`ns/acme/builds/${id}/context`, `ns/acme/builds/${id}/dockerfile`];
    await expect(submit(builder)).rejects.toMatchObject({ code: 'BUILD_QUEUE_FULL' });
    expect(await bench.keys()).toEqual(kept);
    const full = new DecantError('DISK_FULL', 'full');
    const failing = (removes: boolean): ObjectStore => ({
      ...bench.store,
      put: async (key, body, options) => {
        if (key.endsWith('/dockerfile')) throw full;
        return bench.store.put(key, body, options);
      },
      delete: async (key, options) => {
        if (!removes) throw new DecantError('INTERNAL', 'nor can it be removed');
        return bench.store.delete(key, options);
      },
    });
    await expect(submit(await start(scripted(untilStopped), waiting, { store: failing(true) }))).rejects.toBe(full);
    expect(await bench.keys()).toEqual(kept);
    const worse = await start(scripted(untilStopped), waiting, { store: failing(false) });
    await expect(submit(worse)).rejects.toBe(full);
    expect(worse.errors.map(({ message }) => message)).toEqual(['nor can it be removed']);
  });

  it('is one build when it is sent again, and another one with other fields, contexts or callers', async () => {
    const builder = await start(scripted(untilStopped), waiting);
    const first = await submit(builder, acme, { contextDigest: 'same' });
    expect((await submit(builder, acme, { contextDigest: 'same' })).id).toBe(first.id);
    expect(await bench.keys()).toHaveLength(2);
    const fields = buildFieldsSchema.parse({ image_name: 'app', dockerfile_text: 'FROM other\n' });
    const others = [
      await submit(builder, acme, { contextDigest: 'same', fields }),
      await submit(builder, acme, { contextDigest: 'another' }),
      await submit(builder, other, { contextDigest: 'same' }),
    ];
    expect(new Set([first, ...others].map(({ id }) => id)).size).toBe(4);
  });

  it('has the Dockerfile of its context, and a cache key of its own or that of its name', async () => {
    const contextFile = join(bench.directory, 'with-dockerfile.tar');
    const { stream } = packMemoryContext([{ path: 'build/File', content: 'FROM scratch\nCOPY . /\n' }]);
    await pipeline(stream, createWriteStream(contextFile));
    const seen: [string, string][] = [];
    const builder = await start(
      scripted(async ({ dockerfile, cacheKey }) => {
        seen.push([Buffer.from(dockerfile).toString(), cacheKey]);
      }),
    );
    const fields = buildFieldsSchema.parse({ image_name: 'team/app:v1', dockerfile: 'build/File' });
    const keyed = { ...fields, cache_key: 'shared/key' };
    for (const given of [fields, keyed])
      await bench.ended((await submit(builder, acme, { fields: given, contextFile })).id);
    expect(seen).toEqual([
      ['FROM scratch\nCOPY . /\n', 'team/app'],
      ['FROM scratch\nCOPY . /\n', 'shared/key'],
    ]);
    const none = buildFieldsSchema.parse({ image_name: 'app' });
    await expect(submit(builder, acme, { fields: none, contextFile })).rejects.toMatchObject({
      code: 'DOCKERFILE_UNREADABLE',
    });
  });

  it('is received in a private directory, which goes', async () => {
    const builder = await start(scripted(untilStopped), waiting);
    let path: string;
    {
      await using scratch = await builder.scratch();
      ({ path } = scratch);
      expect((await stat(path)).mode & 0o777).toBe(0o700);
      await writeFile(join(path, 'context'), 'x');
    }
    await expect(readdir(path)).rejects.toThrow('ENOENT');
  });
});

describe('builds of long ago', () => {
  it('are forgotten when they have been kept for long enough', async () => {
    const builder = await start(
      scripted(async () => undefined),
      { keepMs: 0 },
    );
    const { id } = await submit(builder);
    await expect.poll(() => bench.metadata.imageBuilds.find(acme, id)).toBeUndefined();
    expect(await bench.keys()).toEqual([]);
  });
});
