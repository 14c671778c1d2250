import { gunzipSync } from 'node:zlib';

import { expect, it } from 'vitest';

import { gzip } from '../archive/gzip.ts';
import { nodeGzip } from './node-gzip.ts';

async function* pieces(...all: readonly (Uint8Array<ArrayBuffer> | Error)[]) {
  for (const piece of all) {
    if (piece instanceof Error) throw piece;
    yield piece;
  }
}

async function gathered(bytes: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of bytes) parts.push(part);
  return Buffer.concat(parts);
}

it('compresses what it is given, behind a header without time and system', async () => {
  const random = crypto.getRandomValues(new Uint8Array(60_000));
  const compressed = await gathered(nodeGzip(pieces(random, new Uint8Array(300_000), random)));
  expect(compressed.subarray(0, 10).toString('hex')).toBe('1f8b08000000000000ff');
  // gunzip checks the checksum and the length.
  expect(gunzipSync(compressed).equals(Buffer.concat([random, new Uint8Array(300_000), random]))).toBe(true);
  expect(gunzipSync(await gathered(nodeGzip(pieces())))).toHaveLength(0);
});

it('fails as its source does, and ends the source when it is left', async () => {
  await expect(gathered(nodeGzip(pieces(new Uint8Array(10), new Error('disk gone'))))).rejects.toThrow('disk gone');
  for (const compress of [nodeGzip, gzip]) {
    let ended = false;
    async function* endless() {
      try {
        for (;;) yield crypto.getRandomValues(new Uint8Array(65_536));
      } finally {
        ended = true;
      }
    }
    for await (const piece of compress(endless())) if (piece.length > 100) break;
    expect(ended).toBe(true);
  }
});

it('takes pieces whose memory is used again, large and small', async () => {
  const plain = crypto.getRandomValues(new Uint8Array(50_000));
  const one = new Uint8Array(4096);
  async function* reused() {
    for (let at = 0, size = 1; at < plain.length; at += size, size = (size * 7) % 4093) {
      const part = plain.subarray(at, at + size);
      one.set(part);
      yield one.subarray(0, part.length);
    }
  }
  for (const compress of [nodeGzip, gzip]) {
    expect(gunzipSync(await gathered(compress(reused()))).equals(plain)).toBe(true);
  }
});

it('keeps a failure for a reader that is slow to come', async () => {
  const failing = nodeGzip(pieces(new Error('disk gone')));
  expect((await failing.next()).value).toHaveLength(10);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await expect(failing.next()).rejects.toThrow('disk gone');
});
