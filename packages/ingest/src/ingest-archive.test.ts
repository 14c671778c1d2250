import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { constants, zstdCompressSync } from 'node:zlib';

import { canonicalConfig } from '@decant/cas';
import { parseImageId, type ObjectStore } from '@decant/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { AdmittedImage, IngestContext } from './admission.ts';
import { ingestArchive } from './ingest-archive.ts';
import { archiveKey } from './object-keys.ts';
import { noise, openBench, type Bench } from './staging.fixture.ts';

let bench: Bench;
let context: IngestContext;
beforeEach(async () => {
  bench = await openBench();
  context = bench.context();
});
afterEach(() => bench[Symbol.asyncDispose]());

const refused = expect.objectContaining({ code: 'INGEST_REFUSED' });
const stage = (bytes: Uint8Array) => bench.store.put(`${context.stagingPrefix}/rootfs.ext4.zst`, bytes);
const admit = (virtualBytes: number, own = context) => ingestArchive({ virtualBytes, layout: 'hinted' }, own);

describe('an image of one object is refused', () => {
  afterEach(async () => {
    expect(await bench.restingKeys()).toEqual([]);
    expect((await readdir(bench.directory)).filter((name) => name !== 'objects')).toEqual([]);
  });

  it('when nothing was uploaded', async () => {
    await expect(admit(4096)).rejects.toEqual(refused);
  });

  it('when it is longer or shorter than was declared', async () => {
    await stage(zstdCompressSync(noise(1, 16)));
    for (const [pages, message] of [
      // Given up at the first byte too many: what is written beside what was declared has no bound.
      [15, 'larger than'],
      [17, 'but 69632 were declared'],
    ] as const) {
      await expect(admit(pages * 4096)).rejects.toMatchObject({
        code: 'INGEST_REFUSED',
        message: expect.stringContaining(message) as string,
      });
    }
  });

  it('when it is no zstd stream, a cut one, or one with something after it', async () => {
    const whole = zstdCompressSync(noise(1, 16), { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
    const flipped = whole.slice();
    flipped[whole.length >> 1]! ^= 1;
    for (const bytes of [
      new Uint8Array(0),
      noise(2, 1),
      whole.subarray(0, -1),
      whole.subarray(0, 1000),
      flipped,
      Buffer.concat([whole, noise(3, 1)]),
    ]) {
      await stage(bytes);
      await expect(admit(16 * 4096)).rejects.toEqual(refused);
    }
  });

  it('when it takes far more room than its upload', async () => {
    const pages = Buffer.alloc(300 * 1024 * 1024, 'bomb');
    await stage(zstdCompressSync(pages));
    await expect(admit(pages.length)).rejects.toMatchObject({
      code: 'INGEST_REFUSED',
      message: expect.stringContaining('times its upload') as string,
    });
  }, 60_000);

  it('when more is declared than an image may have', async () => {
    await expect(admit(2 ** 41)).rejects.toMatchObject({
      code: 'INGEST_REFUSED',
      message: expect.stringContaining('at most') as string,
    });
  });

  it.each(['ENOSPC', 'EDQUOT', 'EIO'])('when the machine fails with %s, which says nothing of it', async (code) => {
    await stage(zstdCompressSync(noise(1, 64)));
    const failure = Object.assign(new Error(code), { code, errno: -5, syscall: 'write' });
    const store: ObjectStore = {
      ...bench.store,
      async *stream(key, options) {
        for await (const piece of bench.store.stream(key, options)) yield piece.subarray(0, 1000);
        throw failure;
      },
    };
    await expect(admit(64 * 4096, { ...context, store })).rejects.toBe(failure);
  });

  it('when it is aborted, with the reason', async () => {
    await stage(zstdCompressSync(noise(1, 64)));
    const reason = new Error('enough');
    const controller = new AbortController();
    const store: ObjectStore = {
      ...bench.store,
      async *stream(key, options) {
        for await (const piece of bench.store.stream(key, options)) {
          controller.abort(reason);
          yield piece;
        }
      },
    };
    await expect(admit(64 * 4096, { ...context, store, signal: controller.signal })).rejects.toBe(reason);
  });
});

describe('an image of one object that the namespace has', () => {
  const raw = noise(1, 16);
  const digest = createHash('sha256').update(raw).digest('hex');
  const known: AdmittedImage = {
    record: {
      id: `sha256:${digest}`,
      format: 'ext4',
      filesystem: 'ext4',
      layout: 'hinted',
      architecture: 'amd64',
      virtualBytes: raw.length,
      contentBytes: raw.length,
      chunks: null,
      storedBytes: 1000,
    },
    configDigest: null,
  };

  it('is neither checked nor written again, but its name gets the configuration that came with it', async () => {
    await stage(zstdCompressSync(raw));
    const resting = archiveKey(context.namespace, parseImageId(known.record.id));
    await bench.store.put(resting, zstdCompressSync(raw));
    const config = canonicalConfig({ architecture: 'amd64', config: { Cmd: ['/bin/true'] } });
    await bench.store.put(`${context.stagingPrefix}/config.json`, config);
    const written: string[] = [];
    const store: ObjectStore = {
      ...bench.store,
      put: (key, body, options) => (written.push(key), bench.store.put(key, body, options)),
    };
    const admission = await admit(raw.length, { ...context, store, findAdmitted: async () => known });
    expect(admission).toMatchObject({
      id: known.record.id,
      record: known.record,
      repeated: true,
      counts: { chunksNew: 0, newBytes: 0, storedBytes: 0 },
    });
    expect(written).toEqual([`ns/acme/configs/${admission.configDigest}`]);
  });

  it('gets no configuration that is not canonical, is no text, has unknown members or is too large', async () => {
    await stage(zstdCompressSync(raw));
    const own = { ...context, findAdmitted: async () => known };
    const large = canonicalConfig({ config: { Cmd: ['x'.repeat(1024 * 1024)] } });
    for (const config of [
      Buffer.from(' {"architecture":"amd64"}'),
      Buffer.from('{"os":"linux","architecture":"amd64"}'),
      Buffer.from('{"architecture":"amd64","architecture":"amd64"}'),
      Buffer.from('\u{feff}{}'),
      Buffer.from('{"evil":1}'),
      Buffer.from('{"config":{"Cmd":["\xff"]}}', 'latin1'),
      large,
    ]) {
      await bench.store.put(`${context.stagingPrefix}/config.json`, config);
      await expect(admit(raw.length, own)).rejects.toEqual(refused);
    }
    expect((await bench.restingKeys()).filter((key) => key.includes('/configs/'))).toEqual([]);
  });

  it('has its configuration written again when that is damaged, and not when it is whole', async () => {
    const bytes = canonicalConfig({ architecture: 'amd64' });
    const written: string[] = [];
    const store: ObjectStore = {
      ...bench.store,
      put: (key, body, options) => (written.push(key), bench.store.put(key, body, options)),
    };
    const admitted = async () => {
      await stage(zstdCompressSync(raw));
      await bench.store.put(`${context.stagingPrefix}/config.json`, bytes);
      written.length = 0;
      const { configDigest } = await admit(raw.length, { ...context, store, findAdmitted: async () => known });
      return `ns/acme/configs/${configDigest}`;
    };
    const key = await admitted();
    expect(written).toContain(key);
    for (const damaged of [bytes.map((byte, i) => (i === 3 ? byte ^ 1 : byte)), bytes.subarray(1), undefined]) {
      if (damaged === undefined) await bench.store.delete(key);
      else await bench.store.put(key, damaged);
      expect(await admitted()).toBe(key);
      expect(written).toEqual([key]);
      expect(Buffer.from(await bench.store.get(key)).equals(bytes)).toBe(true);
    }
    await admitted();
    expect(written).toEqual([]);
  });

  it.each(['is gone', 'has another length', 'has another byte'])(
    'is written again when what rests %s',
    async (damage) => {
      const stored = zstdCompressSync(raw);
      await stage(stored);
      const resting = archiveKey(context.namespace, parseImageId(known.record.id));
      const bytes = Buffer.from(damage === 'has another length' ? stored.subarray(1) : stored);
      bytes[40]! ^= 1;
      if (damage !== 'is gone') await bench.store.put(resting, bytes);
      const admission = await admit(raw.length, { ...context, findAdmitted: async () => known });
      expect(admission).toMatchObject({ repeated: true, counts: { newBytes: 0 } });
      expect(Buffer.from(await bench.store.get(resting)).equals(stored)).toBe(true);
    },
  );

  it('is found by what was uploaded, not by what was declared', async () => {
    await stage(zstdCompressSync(noise(2, 16)));
    const asked: string[] = [];
    const findAdmitted = async (id: string) => {
      asked.push(id);
      return undefined;
    };
    // Not a filesystem: whichever check this machine has for it, it does not pass.
    await expect(admit(16 * 4096, { ...context, findAdmitted })).rejects.toThrow();
    expect(asked).toEqual([`sha256:${createHash('sha256').update(noise(2, 16)).digest('hex')}`]);
  });
});
