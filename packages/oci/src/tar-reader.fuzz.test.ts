import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { readTar } from './tar-reader.ts';
import { makeTar, sign } from './testing/make-tar.ts';
import { failure, inPieces } from './testing/streams.ts';

async function readAll(bytes: Uint8Array): Promise<void> {
  for await (const entry of readTar(inPieces(bytes))) expect(entry.path).not.toBe('');
}

describe('readTar', () => {
  it('either reads mutated archives or refuses them with a code', async () => {
    const base = makeTar([
      { path: 'dir/' },
      {
        path: 'dir/f',
        data: 'data'.repeat(300),
        pax: [
          ['mtime', '1.5'],
          ['SCHILY.xattr.user.a', 'b'],
        ],
      },
      {
        path: 's',
        data: 'abcd',
        pax: [
          ['GNU.sparse.size', '9'],
          ['GNU.sparse.map', '0,1,4,3'],
        ],
      },
      { path: 'l', type: '2', link: 'dir' },
      { path: 'n'.repeat(180), data: 'z' },
    ]);
    const change = fc.record({ at: fc.nat(base.length - 1), value: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 6 }), fc.boolean(), async (changes, resign) => {
        const tar = Buffer.from(base);
        for (const { at, value } of changes) tar[at] = value;
        if (resign) {
          for (const { at } of changes) {
            const start = at - (at % 512);
            if (tar.toString('latin1', start + 257, start + 262) === 'ustar') sign(tar.subarray(start, start + 512));
          }
        }
        expect([undefined, 'LAYER_INVALID', 'LIMIT_EXCEEDED']).toContain(await failure(readAll(tar)));
      }),
      { numRuns: 1500 },
    );
  });
});
