import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdCompressSync } from 'node:zlib';

import { DecantError, type Fetch } from '@decant/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { createDecant } from './decant.ts';
import { decantPaths } from './paths.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sdk-archive-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const raw = Buffer.concat([Buffer.alloc(300_000, 'content'), Buffer.alloc(900_000)]);
const whole = zstdCompressSync(raw);

/** The read plane for one ext4 image, of which the store gives this body. */
function serve(body: () => ReadableStream<Uint8Array> | Uint8Array, status = 200) {
  const virtualBytes = raw.length;
  const image = {
    id: `sha256:${createHash('sha256').update(raw).digest('hex')}`,
    format: 'ext4',
    filesystem: 'ext4',
    layout: 'hinted',
    architecture: null,
    virtualBytes,
    contentBytes: raw.length,
    chunks: null,
    storedBytes: whole.length,
    createdAt: '',
  };
  const fetch: Fetch = async (input, init) => {
    const { pathname } = new URL(new Request(input, init).url);
    if (pathname === '/object') {
      const bytes = body();
      return new Response(bytes instanceof Uint8Array ? Uint8Array.from(bytes) : bytes, { status });
    }
    if (pathname.endsWith('/archive')) {
      const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
      const sizes = { sizeBytes: virtualBytes, storedBytes: whole.length };
      return Response.json({ url: 'http://x/object', encoding: 'zstd', ...sizes, expiresAt });
    }
    return Response.json({ name: 'a', tag: 'b', updatedAt: '', diskBytes: 0, image, config: null });
  };
  return createDecant({ fetch, baseUrl: 'http://x', paths: decantPaths({ DECANT_HOME: directory }) }).images;
}

/** Half of the object; then the connection ends like this. */
const halfThen = (error: unknown) => () =>
  new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(Uint8Array.from(whole.subarray(0, whole.length >> 1)));
    },
    pull(controller) {
      controller.error(error);
    },
  });

describe('an image of one object', () => {
  const file = () => join(directory, 'out');

  it('is read back byte for byte, with and without holes', async () => {
    for (const sparse of [true, false]) {
      await writeFile(file(), 'before');
      expect(await serve(() => whole).export({ ref: 'a', file: file(), sparse })).toMatchObject({ bytes: raw.length });
      expect((await readFile(file())).equals(raw)).toBe(true);
      expect((await stat(file())).size).toBe(raw.length);
    }
    expect(await readdir(directory)).toEqual(['out']);
  });

  it.each([
    ['another byte', zstdCompressSync(Buffer.concat([Buffer.of(1), raw.subarray(1)]))],
    ['another length', zstdCompressSync(raw.subarray(0, -1))],
    ['more behind it', zstdCompressSync(Buffer.concat([raw, Buffer.alloc(1)]))],
    ['a cut', whole.subarray(0, -5)],
    ['no zstd', Buffer.from('hello')],
  ])('is damaged when the store has %s, and nothing of it is given', async (_, bytes) => {
    const images = serve(() => bytes);
    for (const sparse of [true, false]) {
      await expect(images.export({ ref: 'a', file: file(), sparse })).rejects.toMatchObject({
        code: 'CAS_CHUNK_MISMATCH',
      });
    }
    await expect(images.verify('a')).rejects.toMatchObject({ code: 'CAS_CHUNK_MISMATCH' });
    expect(await readdir(directory)).toEqual([]);
  });

  it('is not called damaged when the connection was cut, or when the server says something else', async () => {
    const cut = serve(halfThen(new TypeError('terminated')));
    await expect(cut.verify('a')).rejects.toMatchObject({ code: 'HTTP_UNREACHABLE' });
    await expect(cut.export({ ref: 'a', file: file(), sparse: true })).rejects.toMatchObject({
      code: 'HTTP_UNREACHABLE',
    });
    await expect(serve(() => Buffer.from('busy'), 503).verify('a')).rejects.toMatchObject({ code: 'HTTP_STATUS' });
    const told = new DecantError('INTERNAL', 'The file of an object became shorter.');
    await expect(serve(halfThen(told)).verify('a')).rejects.toBe(told);
    // Of a server in this process: its own disk.
    const broken = Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO', errno: -5, syscall: 'read' });
    await expect(serve(halfThen(broken)).verify('a')).rejects.toMatchObject({ code: 'INTERNAL', cause: broken });
    expect(await readdir(directory)).toEqual([]);
  });

  it('ends with the reason when it is aborted', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const stream = () =>
      new ReadableStream<Uint8Array>({
        start(stream) {
          stream.enqueue(Uint8Array.from(whole.subarray(0, 100)));
        },
        pull() {
          controller.abort(reason);
          return new Promise<void>(() => undefined);
        },
      });
    const exporting = serve(stream).export({ ref: 'a', file: file(), sparse: true }, { signal: controller.signal });
    await expect(exporting).rejects.toBe(reason);
    expect(await readdir(directory)).toEqual([]);
  });
});
