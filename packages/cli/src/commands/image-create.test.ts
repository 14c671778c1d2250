import { describe, expect, test } from 'vitest';

import { buildArgsOf, diskBytesOf, filesystemOf, formatOf, resultLines } from './image-create.ts';

const plain = (text: string) => text;
const STYLE = { bold: plain, dim: plain, red: plain, green: plain, yellow: plain };

describe('formatOf', () => {
  test('the flag, then the environment, then ext4', () => {
    expect(formatOf({ streaming: true }, { DECANT_ROOTFS_FORMAT: 'ext4' })).toBe('cas-streaming');
    expect(formatOf({}, { DECANT_ROOTFS_FORMAT: 'cas-streaming' })).toBe('cas-streaming');
    expect(formatOf({}, { DECANT_ROOTFS_FORMAT: '' })).toBe('ext4');
    expect(formatOf({}, {})).toBe('ext4');
    expect(() => formatOf({}, { DECANT_ROOTFS_FORMAT: 'zip' })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    );
  });
});

describe('diskBytesOf', () => {
  test('whole MiB', () => {
    expect(diskBytesOf({})).toBe(0);
    expect(diskBytesOf({ diskMb: '3' })).toBe(3 * 1024 * 1024);
  });

  test.each(['', '0', '-1', '1.5', '1e3', '0x10', ' 5', '16777217', '99999999999', 'many'])('not %j', (diskMb) => {
    expect(() => diskBytesOf({ diskMb })).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

describe('filesystemOf', () => {
  test('nothing asked for', () => {
    const nothing = { format: 'ext4', diskBytes: 0, ext4: undefined, sourceDateEpoch: undefined, limits: {} };
    expect(filesystemOf({}, {})).toEqual(nothing);
    expect(filesystemOf({}, { SOURCE_DATE_EPOCH: '' })).toEqual(nothing);
  });

  test('the source date: the option, then the environment', () => {
    const env = { SOURCE_DATE_EPOCH: '1700000000' };
    expect(filesystemOf({}, env).sourceDateEpoch).toBe(1_700_000_000);
    expect(filesystemOf({ sourceDateEpoch: '0' }, env).sourceDateEpoch).toBe(0);
  });

  test.each(['-1', '1.5', 'now', '1e9', '9999999999999'])('no source date: %j', (text) => {
    expect(() => filesystemOf({ sourceDateEpoch: text }, {})).toThrow(expect.objectContaining({ code: 'USAGE' }));
    expect(() => filesystemOf({}, { SOURCE_DATE_EPOCH: text })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', hint: expect.any(String) as string }),
    );
  });

  test('limits', () => {
    expect(filesystemOf({ limit: ['depth=5', 'entries=7', 'depth=6'] }, {}).limits).toEqual({ depth: 6, entries: 7 });
    for (const limit of ['depth', 'depth=', 'depth=-1', 'depth=1.5', '=4', 'depth=1 ']) {
      expect(() => filesystemOf({ limit: [limit] }, {})).toThrow(expect.objectContaining({ code: 'USAGE' }));
    }
  });

  test('what an ext4 image is to be', () => {
    expect(filesystemOf({ freeMb: '2', label: 'root' }, {}).ext4).toEqual({ freeBytes: 2 * 2 ** 20, label: 'root' });
    expect(() => filesystemOf({ freeMb: '0' }, {})).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

describe('buildArgsOf', () => {
  test('values may be empty or hold equals signs; without one the environment has it', () => {
    const env = { PROXY: 'p' };
    expect(buildArgsOf(undefined, env)).toEqual({});
    expect(buildArgsOf(['A=', 'B=x=y', 'PROXY', 'ABSENT', 'A=2'], env)).toEqual({ A: '2', B: 'x=y', PROXY: 'p' });
  });

  test.each(['', '=x', '1A=x', 'A B=x', 'Ä=x'])('not %j', (pair) => {
    expect(() => buildArgsOf([pair], {})).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

test('a result for people', () => {
  const image = {
    id: 'cas-v1:12',
    name: 'box',
    tag: 'v1',
    format: 'cas-streaming' as const,
    architecture: 'amd64' as const,
    virtualBytes: 4096,
    contentBytes: 2048,
    createdAt: '2026-01-01T00:00:00.000Z',
  };
  const bytes = { new: 2048, stored: 1024, uploaded: 1100 };
  const timingsMs = { build: 0, layout: 10, upload: 20, admit: 30, total: 70 };
  expect(resultLines({ image, chunks: { total: 3, new: 2, reused: 1 }, bytes, timingsMs }, STYLE)).toEqual([
    'box:v1  cas-v1:12',
    '  2.0 KiB of content on a 4.0 KiB disk, cas-streaming, amd64',
    '  3 chunks: 2 new (2.0 KiB, stored 1.0 KiB), 1 reused; uploaded 1.1 KiB',
    '  70 ms: build 0 ms, layout 10 ms, upload 20 ms, admit 30 ms',
  ]);
  const whole = resultLines({ image: { ...image, architecture: null }, chunks: null, bytes, timingsMs }, STYLE);
  expect(whole.slice(1, 3)).toEqual([
    '  2.0 KiB of content on a 4.0 KiB disk, cas-streaming',
    '  stored 1.0 KiB, uploaded 1.1 KiB',
  ]);
});
