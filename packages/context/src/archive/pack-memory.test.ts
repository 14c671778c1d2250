import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';

import { isDecantError } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { ContextEntry } from '../entry.ts';
import { memoryEntries, packMemoryContext, type MemoryFile } from './pack-memory.ts';
import { packEntries } from './pack.ts';

async function bytesOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

describe('packMemoryContext', () => {
  const files: MemoryFile[] = [
    { path: 'b/c.txt', content: 'hello' },
    { path: 'a', content: new Uint8Array(1000), mode: 0o755 },
    { path: 'b-x', content: '' },
  ];

  it('makes the archive that its digest and length say, whatever the order of the files', async () => {
    const packed = packMemoryContext(files);
    const tar = await bytesOf(packed.stream);
    expect(tar.length).toBe(packed.tarBytes);
    expect(createHash('sha256').update(tar).digest('hex')).toBe(await packed.digest);
    const other = packMemoryContext(files.toReversed());
    expect((await bytesOf(other.stream)).equals(tar)).toBe(true);
    // Sorted by bytes: `-` comes before `/`.
    const names = [0, 1536, 2048, 2560].map((at) => tar.toString('latin1', at, tar.indexOf(0, at)));
    expect(names).toEqual(['a', 'b/', 'b-x', 'b/c.txt']);
  });

  it('keeps one digest for ever', async () => {
    // A change of this value makes every context new to every cache.
    const { stream, digest } = packMemoryContext([{ path: 'dir/file', content: 'x' }]);
    await bytesOf(stream);
    expect(await digest).toMatchInlineSnapshot(`"24fea6ebe2d8ab73ee38145886de7a8a5280033f54eefb18b62317b7f2ea6e10"`);
  });

  it('compresses behind a header without time and system', async () => {
    const plain = packMemoryContext(files);
    const tar = await bytesOf(plain.stream);
    const packed = packMemoryContext(files, { gzip: true });
    const gz = await bytesOf(packed.stream);
    expect(gz.subarray(0, 10).toString('hex')).toBe('1f8b08000000000000ff');
    expect(gunzipSync(gz).equals(tar)).toBe(true);
    expect(await packed.digest).toBe(await plain.digest);
  });

  it.each(['/a', 'a//b', './a', 'a/../b', '', 'a/', 'a\0'])('refuses the path %j', (path) => {
    expect(() => packMemoryContext([{ path, content: '' }])).toThrow(/clean relative path/);
  });

  it('refuses a path given twice, and one below a file', () => {
    const twice = [
      { path: 'a', content: '' },
      { path: 'a', content: '' },
    ];
    expect(() => packMemoryContext(twice)).toThrow(/twice/);
    expect(() =>
      packMemoryContext([
        { path: 'a', content: '' },
        { path: 'a/b', content: '' },
      ]),
    ).toThrow(/below the file/);
    expect(() =>
      packMemoryContext([
        { path: 'a/b', content: '' },
        { path: 'a', content: '' },
      ]),
    ).toThrow(/twice/);
  });

  it('ends with the reason of an abort, and the digest with it', async () => {
    const controller = new AbortController();
    const many = Array.from({ length: 50 }, (_, index) => ({ path: `f${index}`, content: new Uint8Array(100_000) }));
    for (const gzip of [false, true]) {
      const { stream, digest } = packMemoryContext(many, { gzip, signal: controller.signal });
      const reading = (async () => {
        for await (const piece of stream) if (piece.length > 0) controller.abort(new Error('enough'));
      })();
      await expect(reading).rejects.toThrow('enough');
      await expect(digest).rejects.toThrow('enough');
    }
  });

  it('is ended by an abort in the middle of one long file, and among entries that have none', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const long: ContextEntry = { path: 'a', type: 'file', sizeBytes: 1e12, mode: 0o644 };
    const endless = async function* () {
      for (let at = 0; at < 1000; at++) {
        if (at === 10) controller.abort(new Error('enough'));
        yield new Uint8Array(100_000);
      }
      throw new Error('read on');
    };
    await expect(bytesOf(packEntries([long], endless, { signal }).stream)).rejects.toThrow('enough');
    const folders = Array.from({ length: 2000 }, (_, at): ContextEntry => {
      return { path: `d${at}`, type: 'directory', sizeBytes: 0, mode: 0o755 };
    });
    const started = new AbortController();
    const reading = (async () => {
      const { stream } = packEntries(folders, () => [], { signal: started.signal });
      for await (const piece of stream) if (piece.length > 0) started.abort(new Error('enough'));
    })();
    await expect(reading).rejects.toThrow('enough');
  });

  it('keeps the permission bits of a mode and nothing else', () => {
    const { entries } = memoryEntries([{ path: 'a', content: '', mode: 0o104755 }]);
    expect(entries[0]!.mode).toBe(0o4755);
  });

  it('rejects the digest of a stream that is left early', async () => {
    const { stream, digest } = packMemoryContext([{ path: 'a', content: new Uint8Array(1_000_000) }]);
    for await (const piece of stream) if (piece.length > 0) break;
    await expect(digest).rejects.toThrow(/not read to its end/);
  });

  it('passes on the error of a file through the compressor', async () => {
    const entry = { path: 'a', type: 'file', sizeBytes: 3, mode: 0o644 } as const;
    const fail = async function* () {
      yield Uint8Array.of(1);
      throw new Error('disk gone');
    };
    const { stream } = packEntries([entry], fail, { gzip: true });
    await expect(bytesOf(stream)).rejects.toThrow('disk gone');
  });

  it('refuses paths over 4,096 bytes before it packs anything', () => {
    const path = Array.from({ length: 21 }, () => 'x'.repeat(200)).join('/');
    let failure: unknown;
    try {
      packMemoryContext([{ path, content: '' }]);
    } catch (error) {
      failure = error;
    }
    expect(isDecantError(failure, 'CONTEXT_ENTRY_UNSUPPORTED')).toBe(true);
  });

  it('has the length it says for any names and sizes', async () => {
    const name = fc.string({ unit: fc.constantFrom('a', 'ü', 'b', '-', ' '), minLength: 1, maxLength: 130 });
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.tuple(path, fc.nat(3000)), { selector: ([p]) => p.split('/')[0], maxLength: 6 }),
        async (given) => {
          const packed = packMemoryContext(given.map(([p, size]) => ({ path: p, content: new Uint8Array(size) })));
          const tar = await bytesOf(packed.stream);
          expect(tar.length).toBe(packed.tarBytes);
          expect(tar.length % 512).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });
});
