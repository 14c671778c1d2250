import { describe, expect, it } from 'vitest';

import type { TarEntry } from './tar-entry.ts';
import { readTar, type ReadTarOptions } from './tar-reader.ts';
import { entryBlocks, header, makeTar, number, padded, paxRecords, type TarSpec } from './testing/make-tar.ts';
import { failure, inPieces } from './testing/streams.ts';

async function read(bytes: Uint8Array, options?: ReadTarOptions): Promise<TarEntry[]> {
  const entries: TarEntry[] = [];
  for await (const entry of readTar(inPieces(bytes), options)) entries.push(entry);
  return entries;
}

const END = Buffer.alloc(1024);
const pax = (...records: [string, string][]) => makeTar([{ path: 'x', data: 'abcd', pax: records }]);
const longName = (bytes: string) =>
  Buffer.concat([header({ path: 'L', type: 'L' }, bytes.length), padded(Buffer.from(bytes)), makeTar([{ path: 'a' }])]);
const global = (records: [string, string][], after: readonly TarSpec[]) => {
  const bytes = paxRecords(records);
  return Buffer.concat([header({ path: 'g', type: 'g' }, bytes.length), padded(bytes), ...after.flatMap(entryBlocks)]);
};
const gnuSparse = (fill: (block: Buffer) => void) =>
  header(
    {
      path: 's',
      type: 'S',
      patch: (block) => {
        block.write('ustar  \0', 257, 'latin1');
        fill(block);
      },
    },
    0,
  );

describe('readTar refuses', () => {
  const bad: [string, () => Buffer][] = [
    ['a long name with a second one behind a NUL', () => longName('a\0b\0')],
    ['an empty long name', () => longName('\0')],
    ['a sparse file of GNU in another archive', () => makeTar([{ path: 's', type: 'S' }])],
    ['a negative real size', () => Buffer.concat([gnuSparse((block) => number(block, 483, 12, -1)), END])],
    [
      'an empty block of sparse runs with more to come',
      () => {
        const more = Buffer.alloc(512);
        more[504] = 1;
        return Buffer.concat([gnuSparse((block) => void (block[482] = 1)), more, Buffer.alloc(512), END]);
      },
    ],
    ['a NUL in a PAX key', () => pax(['a\0b', 'v'])],
    ['an extended attribute without a name', () => pax(['SCHILY.xattr.', 'v'])],
    ['two sparse offsets in a row', () => pax(['GNU.sparse.offset', '0'], ['GNU.sparse.offset', '4'])],
    ['a sparse length first', () => pax(['GNU.sparse.numbytes', '4'], ['GNU.sparse.offset', '0'])],
    ['a sparse offset without a length', () => pax(['GNU.sparse.size', '4'], ['GNU.sparse.offset', '0'])],
    [
      'another number of sparse runs than declared',
      () => pax(['GNU.sparse.size', '4'], ['GNU.sparse.numblocks', '2'], ['GNU.sparse.map', '0,4']),
    ],
    [
      'a sparse format that is not known',
      () => pax(['GNU.sparse.major', '2'], ['GNU.sparse.minor', '0'], ['GNU.sparse.size', '4']),
    ],
    ['a sparse file without a size', () => pax(['GNU.sparse.map', '0,4'])],
  ];
  it.each(bad)('%s', async (_, make) => {
    expect(await failure(read(make()))).toBe('LAYER_INVALID');
  });

  it.each([
    ['in a header and blocks behind it', Buffer.concat([gnuSparse(run), END]), 0],
    ['in a record', pax(['GNU.sparse.size', '9'], ['GNU.sparse.map', '0,2,4,2']), 1],
    [
      'in lines before the data',
      makeTar([
        {
          path: 'x',
          data: Buffer.concat([padded(Buffer.from('2\n0\n2\n4\n2\n')), Buffer.from('abcd')]),
          pax: [
            ['GNU.sparse.major', '1'],
            ['GNU.sparse.minor', '0'],
            ['GNU.sparse.realsize', '9'],
          ],
        },
      ]),
      1,
    ],
  ])('more sparse runs than the limit, %s', async (_, tar, sparseRuns) => {
    expect(await failure(read(tar, { limits: { sparseRuns } }))).toBe('LIMIT_EXCEEDED');
    expect(await read(tar, { limits: { sparseRuns: sparseRuns + 1 } })).toHaveLength(1);
  });

  function run(block: Buffer): void {
    number(block, 386, 12, 0);
    number(block, 398, 12, 0);
  }
});

describe('readTar takes', () => {
  it('back what a global header said when a later one is empty, and only owners and times from it', async () => {
    const tar = Buffer.concat([
      global(
        [
          ['uid', '5'],
          ['SCHILY.xattr.user.x', 'v'],
        ],
        [{ path: 'a', uid: 1 }],
      ),
      global([['uid', '']], [{ path: 'b', uid: 1 }]),
      END,
    ]);
    expect((await read(tar)).map(({ uid, xattrs }) => [uid, xattrs])).toEqual([
      [5, []],
      [1, []],
    ]);
  });

  it('an archive that ends with a global header, and not one that ends with another', async () => {
    const comment: [string, string][] = [['comment', 'by somebody']];
    expect(await read(Buffer.concat([global(comment, [{ path: 'a' }]), global(comment, []), END]))).toHaveLength(1);
    const name = Buffer.concat([header({ path: 'L', type: 'L' }, 2), padded(Buffer.from('a\0')), END]);
    expect(await failure(read(name))).toBe('LAYER_INVALID');
  });

  it('checksums of signed bytes, numbers with rests behind their NUL, and the prefix of star', async () => {
    const name = Buffer.from([0xe9, 0xff]);
    const signed = header({ path: name, patch: (block) => void block.write('0000644\0', 100) }, 0);
    const sum = Number.parseInt(signed.toString('latin1', 148, 154), 8) - 2 * 256;
    signed.write(sum.toString(8).padStart(6, '0'), 148, 'latin1');
    expect((await read(Buffer.concat([signed, END])))[0]).toMatchObject({ path: '\u00e9\u00ff', mode: 0o644 });
    const rests = await read(makeTar([{ path: 'a', patch: (block) => void block.write('644\0zzz ', 100) }]));
    expect(rests[0]).toMatchObject({ mode: 0o644 });
    const star = (block: Buffer) => {
      block.write('some/where', 345);
      block.write('00000000001 ', 476);
      block.write('tar\0', 508);
    };
    const [long] = await read(
      makeTar([{ path: 'a', patch: (block) => (star(block), void block.fill('p', 345, 476)) }]),
    );
    expect(long!.path).toBe(`${'p'.repeat(131)}/a`);
    expect((await read(makeTar([{ path: 'a', patch: star }])))[0]!.path).toBe('some/where/a');
  });

  it('no more of its source than it was asked for, and gives it up', async () => {
    let open = 0;
    async function* source() {
      open++;
      try {
        yield* inPieces(makeTar([{ path: 'a' }, { path: 'b' }]), 512);
      } finally {
        open--;
      }
    }
    for await (const _ of readTar(source())) {
      expect(open).toBe(1);
      break;
    }
    expect(open).toBe(0);
  });
});
