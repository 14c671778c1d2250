import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { BlobName, ReadOptions } from '../blob-source.ts';
import { digestOf } from '../testing/make-layout.ts';
import { failure, gather } from '../testing/streams.ts';
import { FetchedLayers } from './fetch-layers.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'fetch-layers-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const BYTES = Array.from({ length: 6 }, (_, i) => Buffer.alloc(1000, `layer ${i} `));
const NAMES = BYTES.map((bytes): BlobName => ({ digest: digestOf(bytes), size: bytes.length, mediaType: 'a/b' }));

function fetched(
  layers: readonly BlobName[],
  download: (blob: BlobName, options: ReadOptions) => AsyncIterable<Uint8Array>,
): FetchedLayers {
  return new FetchedLayers(layers, { directory, parallel: 2, onEvent: undefined, download });
}

async function* bytesOf({ digest }: BlobName): AsyncGenerator<Uint8Array> {
  yield BYTES[NAMES.findIndex((name) => name.digest === digest)]!;
}

/** Until the signal says to stop. */
async function* waiting(_: BlobName, { signal }: ReadOptions): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(10);
  signal!.throwIfAborted();
  await new Promise((__, reject) => {
    signal!.addEventListener('abort', () => reject(signal!.reason as Error));
  });
}

describe('layers that are downloaded', () => {
  it('are so once each, that many at a time, into files of nobody else', async () => {
    let running = 0;
    let most = 0;
    let count = 0;
    await using layers = fetched([...NAMES, ...NAMES], async function* (blob) {
      count++;
      most = Math.max(most, ++running);
      yield* bytesOf(blob);
      await new Promise(setImmediate);
      running--;
    });
    for (const [i, name] of [...NAMES, ...NAMES].entries()) {
      expect(digestOf(await gather(layers.read(name)))).toBe(NAMES[i % NAMES.length]!.digest);
    }
    expect([count, most]).toEqual([NAMES.length, 2]);
    const files = await readdir(directory);
    expect(files).toHaveLength(NAMES.length);
    for (const file of files) expect((await stat(join(directory, file))).mode & 0o777).toBe(0o600);
  });

  it('are not there when they are not what they should be', async () => {
    for (const wrong of [Buffer.alloc(1000, 'x'), BYTES[0]!.subarray(1), Buffer.concat([BYTES[0]!, BYTES[0]!])]) {
      await using layers = fetched(NAMES.slice(0, 1), async function* () {
        yield wrong;
      });
      for (let i = 0; i < 2; i++) expect(await failure(gather(layers.read(NAMES[0]!)))).toBe('OCI_DIGEST_MISMATCH');
      expect(await readdir(directory)).toEqual([]);
    }
  });

  it('go when they are given up, also those on their way', async () => {
    {
      await using layers = fetched(NAMES, (blob, options) =>
        blob === NAMES[0] ? bytesOf(blob) : waiting(blob, options),
      );
      await gather(layers.read(NAMES[0]!));
      expect((await readdir(directory)).length).toBeGreaterThan(0);
    }
    expect(await readdir(directory)).toEqual([]);
  });

  it('are not waited for by a reader that was told to stop', async () => {
    await using layers = fetched(NAMES, waiting);
    const controller = new AbortController();
    const reason = new Error('enough');
    const read = gather(layers.read(NAMES[0]!, { signal: controller.signal }));
    controller.abort(reason);
    await expect(read).rejects.toBe(reason);
    await expect(gather(layers.read(NAMES[0]!, { signal: controller.signal }))).rejects.toBe(reason);
  });
});
