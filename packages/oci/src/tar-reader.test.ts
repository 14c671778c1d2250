import { describe, expect, it } from 'vitest';

import type { TarEntry } from './tar-entry.ts';
import { readTar, type ReadTarOptions } from './tar-reader.ts';
import { entryBlocks, header, makeTar, number, padded, paxRecords, type TarSpec } from './testing/make-tar.ts';
import { failure, inPieces } from './testing/streams.ts';

async function read(bytes: Uint8Array, options?: ReadTarOptions, pieceBytes?: number): Promise<TarEntry[]> {
  const entries: TarEntry[] = [];
  for await (const entry of readTar(inPieces(bytes, pieceBytes), options)) entries.push(entry);
  return entries;
}

const one = async (spec: TarSpec) => (await read(makeTar([spec])))[0]!;
const refused = (bytes: Uint8Array) => failure(read(bytes));
const latin1 = (text: string) => Buffer.from(text).toString('latin1');

/** GNU header with room for four sparse runs. */
const gnuSparse = (runs: [number, number][], realSize: number, more: boolean) => (block: Buffer) => {
  block.write('ustar  \0', 257, 'latin1');
  for (const [i, [offset, length]] of runs.entries()) {
    number(block, 386 + 24 * i, 12, offset);
    number(block, 398 + 24 * i, 12, length);
  }
  block[482] = more ? 1 : 0;
  number(block, 483, 12, realSize);
};

describe('readTar', () => {
  it('reads each type of entry, wherever pieces end', async () => {
    const tar = makeTar([
      { path: './', mode: 0o700 },
      { path: 'a/b', data: 'hello', mode: 0o4755, uid: 7, gid: 8, mtime: 99 },
      { path: 'hard', type: '1', link: 'a/b' },
      { path: 'soft', type: '2', link: '../x' },
      { path: 'null', type: '3', dev: [1, 3] },
      { path: 'disk', type: '4', dev: [8, 1] },
      { path: 'pipe', type: '6' },
      { path: 'old/', type: '\0' },
    ]);
    for (const pieceBytes of [1, 511, 512, 65_536]) {
      const entries = await read(tar, {}, pieceBytes);
      expect(entries.map(({ path, type }) => `${type} ${path}`)).toEqual([
        'directory ./',
        'file a/b',
        'hardlink hard',
        'symlink soft',
        'character-device null',
        'block-device disk',
        'fifo pipe',
        'directory old/',
      ]);
      const file = entries[1]!;
      expect(tar.subarray(file.dataOffset, file.dataOffset + file.storedBytes).toString()).toBe('hello');
      expect(file).toMatchObject({ mode: 0o4755, uid: 7, gid: 8, mtimeSeconds: 99, sizeBytes: 5, headerOffset: 512 });
      expect(entries[2]!.linkPath).toBe('a/b');
      expect(entries[4]).toMatchObject({ devMajor: 1, devMinor: 3 });
    }
  });

  it('joins the ustar prefix and reads GNU long names', async () => {
    const prefixed = await one({ path: 'name', patch: (block) => void block.write('some/where', 345) });
    expect(prefixed.path).toBe('some/where/name');
    const long = 'n'.repeat(300);
    const tar = Buffer.concat([
      header({ path: '././@LongLink', type: 'L' }, 301),
      padded(Buffer.from(`${long}\0`)),
      header({ path: '././@LongLink', type: 'K' }, 201),
      padded(Buffer.from(`${'t'.repeat(200)}\0`)),
      ...entryBlocks({ path: 'short', type: '2', link: 'x' }),
      Buffer.alloc(1024),
    ]);
    expect((await read(tar))[0]).toMatchObject({ path: long, linkPath: 't'.repeat(200), type: 'symlink' });
  });

  it('lets PAX records win over the header, as bytes', async () => {
    const value = Buffer.from([1, 0, 0, 2, 0xff, 0x0a, 0xfe]);
    const entry = await one({
      path: 'x',
      type: '2',
      link: 'y',
      pax: [
        ['path', Buffer.from([0xff, 0x2f, 0xe9])],
        ['linkpath', 'zü'],
        ['uid', '4000000'],
        ['gid', '4294967294'],
        ['mtime', '7260000000.123456789'],
        ['SCHILY.xattr.user.b', 'v'],
        ['SCHILY.xattr.security.capability', value],
        ['LIBARCHIVE.xattr.user.c', 'dg=='],
      ],
    });
    expect(entry).toMatchObject({
      path: '\u00ff/\u00e9',
      linkPath: latin1('zü'),
      uid: 4_000_000,
      gid: 4_294_967_294,
      mtimeSeconds: 7_260_000_000,
      mtimeNanoseconds: 123_456_789,
    });
    expect(entry.xattrs.map(({ name, value: bytes }) => [name, Buffer.from(bytes).toString('hex')])).toEqual([
      ['security.capability', value.toString('hex')],
      ['user.b', '76'],
    ]);
  });

  it.each([
    ['-1', -1, 0],
    ['-1.5', -2, 500_000_000],
    ['-0.000000001', -1, 999_999_999],
    ['0.9999999999', 0, 999_999_999],
    ['-0', 0, 0],
  ])('reads the time %s', async (text, seconds, nanoseconds) => {
    const entry = await one({ path: 'x', pax: [['mtime', text]] });
    expect([entry.mtimeSeconds, entry.mtimeNanoseconds]).toEqual([seconds, nanoseconds]);
  });

  it('reads base-256 numbers, negative times included', async () => {
    expect(await one({ path: 'x', uid: 3_000_000, mtime: -5 })).toMatchObject({ uid: 3_000_000, mtimeSeconds: -5 });
  });

  it('applies global headers to owners and times, and lets an own empty value undo them', async () => {
    const records = paxRecords([
      ['comment', 'abc'],
      ['uid', '5'],
      ['mtime', '77'],
    ]);
    const tar = Buffer.concat([
      header({ path: 'g', type: 'g' }, records.length),
      padded(records),
      ...entryBlocks({ path: 'a', uid: 1 }),
      ...entryBlocks({ path: 'b', uid: 2, pax: [['uid', '']] }),
      Buffer.alloc(1024),
    ]);
    expect((await read(tar)).map(({ uid, mtimeSeconds }) => [uid, mtimeSeconds])).toEqual([
      [5, 77],
      [2, 77],
    ]);
  });

  it('reads the four forms of sparse files', async () => {
    const more = Buffer.alloc(512);
    number(more, 0, 12, 8192);
    number(more, 12, 12, 3);
    const old = Buffer.concat([
      header(
        {
          path: 'old',
          type: 'S',
          patch: gnuSparse(
            [
              [0, 1],
              [512, 1],
              [1024, 1],
              [4096, 1],
            ],
            10_000,
            true,
          ),
        },
        7,
      ),
      more,
      padded(Buffer.from('abcdefg')),
      Buffer.alloc(1024),
    ]);
    const oldEntry = (await read(old))[0]!;
    expect(oldEntry).toMatchObject({ sizeBytes: 10_000, storedBytes: 7, dataOffset: 1024 });
    expect(oldEntry.sparse).toHaveLength(5);
    expect(oldEntry.sparse?.at(-1)).toEqual({ fileOffset: 8192, lengthBytes: 3 });

    const v00 = await one({
      path: 'x',
      data: 'abcd',
      pax: [
        ['GNU.sparse.size', '9000'],
        ['GNU.sparse.numblocks', '2'],
        ['GNU.sparse.offset', '0'],
        ['GNU.sparse.numbytes', '1'],
        ['GNU.sparse.offset', '4096'],
        ['GNU.sparse.numbytes', '3'],
      ],
    });
    const v01 = await one({
      path: 'x',
      data: 'abcd',
      pax: [
        ['GNU.sparse.size', '9000'],
        ['GNU.sparse.numblocks', '2'],
        ['GNU.sparse.name', 'real'],
        ['GNU.sparse.map', '0,1,4096,3'],
      ],
    });
    const runs = [
      { fileOffset: 0, lengthBytes: 1 },
      { fileOffset: 4096, lengthBytes: 3 },
    ];
    expect(v00).toMatchObject({ path: 'x', sizeBytes: 9000, storedBytes: 4, sparse: runs });
    expect(v01).toMatchObject({ path: 'real', sizeBytes: 9000, storedBytes: 4, sparse: runs });

    const map = Buffer.alloc(512);
    map.write('3\n0\n1\n4096\n3\n9000\n0\n');
    const v10 = await one({
      path: 'GNUSparseFile.1/x',
      data: Buffer.concat([map, Buffer.from('abcd')]),
      pax: [
        ['GNU.sparse.major', '1'],
        ['GNU.sparse.minor', '0'],
        ['GNU.sparse.name', 'real'],
        ['GNU.sparse.realsize', '9000'],
      ],
    });
    expect(v10).toMatchObject({ path: 'real', sizeBytes: 9000, storedBytes: 4, dataOffset: 2048, sparse: runs });
  });

  it('reads past the end mark, and takes an archive without one', async () => {
    const tar = makeTar([{ path: 'a', data: 'x' }]);
    let pulled = 0;
    async function* counted() {
      for await (const piece of inPieces(Buffer.concat([tar, Buffer.from('garbage'), Buffer.alloc(4096, 1)]), 100)) {
        pulled += piece.length;
        yield piece;
      }
    }
    for await (const entry of readTar(counted())) expect(entry.path).toBe('a');
    expect(pulled).toBe(tar.length + 7 + 4096);
    expect(await read(makeTar([{ path: 'a' }], { endBlocks: 0 }))).toHaveLength(1);
    expect(await read(makeTar([{ path: 'a' }], { endBlocks: 1 }))).toHaveLength(1);
    expect(await read(Buffer.alloc(0))).toEqual([]);
  });

  it('takes a PAX size for a file of 8 GiB or more', async () => {
    const tar = makeTar([{ path: 'big', size: 0, pax: [['size', String(2 ** 33)]] }]);
    expect(await failure(read(tar))).toBe('LAYER_INVALID'); // truncated, but only after the entry
    for await (const entry of readTar(inPieces(tar))) {
      expect(entry.storedBytes).toBe(2 ** 33);
      break;
    }
  });

  const bad: [string, () => Buffer][] = [
    ['a wrong checksum', () => spoil(makeTar([{ path: 'a' }]), 0)],
    ['a header of letters', () => makeTar([{ path: 'a', patch: (block) => void block.write('zzz', 100) }])],
    ['a negative size', () => makeTar([{ path: 'a', size: -1 }])],
    ['a size beyond 2^53', () => makeTar([{ path: 'a', patch: (block) => void block.fill(0xbf, 124, 136) }])],
    ['an unknown type', () => makeTar([{ path: 'a', type: 'Q' }])],
    ['no name', () => makeTar([{ path: '' }])],
    ['a link without a target', () => makeTar([{ path: 'a', type: '2' }])],
    ['a PAX size that contradicts', () => makeTar([{ path: 'a', data: 'xy', pax: [['size', '512']] }])],
    ['a NUL in a PAX path', () => makeTar([{ path: 'a', pax: [['path', 'a\0b']] }])],
    ['a NUL in a PAX link', () => makeTar([{ path: 'a', type: '2', link: 'x', pax: [['linkpath', 'a\0b']] }])],
    ['a negative PAX uid', () => makeTar([{ path: 'a', pax: [['uid', '-1']] }])],
    ['a PAX time of words', () => makeTar([{ path: 'a', pax: [['mtime', 'now']] }])],
    ['zeros between entries', () => Buffer.concat([Buffer.alloc(512), makeTar([{ path: 'a' }])])],
    ['a PAX header and no entry', () => withPax(Buffer.from('6 a=b\n'), [])],
    ['a PAX record without line end', () => withPax(Buffer.from('6 a=bX'))],
    ['a PAX record that is too long', () => withPax(Buffer.from('60 a=b\n'))],
    ['a PAX record of length 0', () => withPax(Buffer.from('0 a=b\n'))],
    ['a PAX record without a key', () => withPax(Buffer.from('5 =b\n'))],
    ['a PAX record without an equals sign', () => withPax(Buffer.from('5 ab\n'))],
    ['a PAX record with a huge length', () => withPax(Buffer.from('99999999999999999999 a=b\n'))],
    ['a global path', () => withPax(paxRecords([['path', 'x']]), undefined, 'g')],
    ['overlapping sparse runs', () => sparse('0,4,2,4', '8')],
    ['sparse runs outside the file', () => sparse('0,4,6,4', '8')],
    ['sparse runs with other bytes than stored', () => sparse('0,4', '8')],
    ['half a sparse run', () => sparse('0,4,5', '8')],
    ['sparse runs of words', () => sparse('0,x', '8')],
    ['a sparse map longer than its file', () => sparse10('9\n0\n1\n')],
    ['an endless line in a sparse map', () => sparse10('1'.repeat(100))],
  ];
  it.each(bad)('refuses %s', async (_, make) => {
    expect(await refused(make())).toBe('LAYER_INVALID');
  });

  it('names entry and byte offset', async () => {
    const tar = makeTar([
      { path: 'a', data: 'x' },
      { path: 'dir/bad', type: 'Q' },
    ]);
    await expect(read(tar)).rejects.toMatchObject({ details: { offset: 1024, entry: 'dir/bad' } });
  });

  it('refuses every cut that loses data', async () => {
    const tar = makeTar([
      { path: 'a', data: 'x'.repeat(600), pax: [['uid', '1']] },
      { path: 'b', data: 'y' },
    ]);
    const boundary = 512 * 5;
    for (let cut = 1; cut < tar.length - 1024; cut += 97) {
      const found = await refused(tar.subarray(0, cut));
      expect(found, `cut at ${cut}`).toBe(cut === boundary ? undefined : 'LAYER_INVALID');
    }
  });

  it('bounds metadata and sparse maps', async () => {
    const huge = header({ path: 'x', type: 'x' }, 2 * 1024 * 1024);
    expect(await refused(Buffer.concat([huge, Buffer.alloc(1024)]))).toBe('LIMIT_EXCEEDED');
    const long = header({ path: 'x', type: 'L' }, 2 ** 40);
    expect(await refused(long)).toBe('LIMIT_EXCEEDED');
    const many = sparse10('4000000\n');
    expect(await refused(many)).toBe('LIMIT_EXCEEDED');
    const block = Buffer.alloc(512);
    for (let i = 0; i < 21; i++) {
      number(block, 24 * i, 12, 0);
      number(block, 24 * i + 12, 12, 0);
    }
    block[504] = 1;
    const endless = Buffer.concat([
      header({ path: 's', type: 'S', patch: gnuSparse([[0, 0]], 0, true) }, 0),
      ...Array.from({ length: 200 }, () => block),
    ]);
    expect(await failure(read(endless, { limits: { sparseRuns: 1000 } }))).toBe('LIMIT_EXCEEDED');
  });

  it('stops when told to', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const reading = (async () => {
      for await (const _ of readTar(inPieces(makeTar([{ path: 'a' }, { path: 'b' }]), 512), {
        signal: controller.signal,
      })) {
        controller.abort(reason);
      }
    })();
    await expect(reading).rejects.toBe(reason);
  });
});

function spoil(tar: Buffer, at: number): Buffer {
  tar[at] = (tar[at]! + 1) & 0xff;
  return tar;
}

function withPax(records: Buffer, after: readonly TarSpec[] = [{ path: 'a' }], type = 'x'): Buffer {
  return Buffer.concat([header({ path: 'p', type }, records.length), padded(records), makeTar(after)]);
}

function sparse(map: string, size: string): Buffer {
  return makeTar([
    {
      path: 'x',
      data: 'abcdefgh',
      pax: [
        ['GNU.sparse.size', size],
        ['GNU.sparse.map', map],
      ],
    },
  ]);
}

function sparse10(map: string): Buffer {
  const block = Buffer.alloc(512);
  block.write(map);
  return makeTar([
    {
      path: 'x',
      data: block,
      pax: [
        ['GNU.sparse.major', '1'],
        ['GNU.sparse.minor', '0'],
        ['GNU.sparse.realsize', '9'],
      ],
    },
  ]);
}
