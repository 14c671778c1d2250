import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { MIB } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { createImageDisk, type ImageDisk } from './image-disk.ts';
import { serveNbd, type NbdServer } from './nbd-server.ts';
import { codec, hash, makeTestImage, type TestImage } from './test-image.ts';

const haveLibnbd = (await findProgram('nbdcopy')) !== undefined && (await findProgram('nbdinfo')) !== undefined;
const haveQemu = (await findProgram('qemu-img')) !== undefined;

let folder: string;
let image: TestImage;
let disk: ImageDisk;
let server: NbdServer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-system-'));
  image = await makeTestImage(20 * MIB + 4096);
  const options = { manifest: image.manifest, source: image.source, hash, codec, attempts: 2, retryDelayMs: 1 };
  disk = createImageDisk({ ...options, memoryBytes: 2 * MIB });
  server = await serveNbd({ listen: { socketPath: join(folder, 's') }, exports: new Map([['image', disk]]) });
});

afterAll(async () => {
  await server.close();
  await disk[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const limit = { timeoutMs: 120_000 };

describe.skipIf(!haveLibnbd)('[backend:libnbd] nbdinfo and nbdcopy', () => {
  test('nbdinfo sees a read-only export for several connections', async () => {
    const { stdout } = await run('nbdinfo', ['--json', server.uri], limit);
    const [info] = (JSON.parse(stdout.toString()) as { exports: Record<string, unknown>[] }).exports;
    expect(info).toMatchObject({
      'export-size': image.bytes.length,
      is_read_only: true,
      can_multi_conn: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
    });
    const list = await run('nbdinfo', ['--list', server.uri], limit);
    expect(list.stdout.toString()).toContain('export="image"');
  });

  test('nbdcopy copies the image byte for byte over several connections', async () => {
    const target = join(folder, 'copy');
    await run('nbdcopy', ['--connections=4', server.uri, target], limit);
    expect(Buffer.compare(await readFile(target), image.bytes)).toBe(0);
  });

  test('a flipped bit in a stored chunk is an I/O error', async () => {
    const frame = [...image.frames.values()].at(-1)!;
    const stored = frame.stored.slice();
    stored[stored.length >> 1]! ^= 4;
    image.frames.set(frame.id, { ...frame, stored });
    try {
      const copy = run('nbdcopy', [server.uri, join(folder, 'bad')], limit);
      await expect(copy).rejects.toMatchObject({
        details: { lastLines: expect.stringMatching(/Input\/output error/) },
      });
    } finally {
      image.frames.set(frame.id, frame);
    }
  });
});

describe.skipIf(!haveQemu)('[backend:qemu-utils] qemu-img', () => {
  test('compare and convert', async () => {
    const file = join(folder, 'raw');
    await writeFile(file, image.bytes);
    const { stdout } = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', server.uri, file], limit);
    expect(stdout.toString()).toContain('Images are identical');
    const converted = join(folder, 'converted');
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', server.uri, converted], limit);
    expect(Buffer.compare(await readFile(converted), image.bytes)).toBe(0);
    await using handle = await open(file, 'r+');
    await handle.write(Buffer.from([image.bytes[4096]! ^ 1]), 0, 1, 4096);
    const different = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', server.uri, file], {
      ...limit,
      okCodes: [1],
    });
    expect(different.stdout.toString()).toContain('Content mismatch at offset 4096');
  });
});
