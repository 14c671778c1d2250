import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { failure, inPieces, makeTar, type TarSpec } from '@decant/oci/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { at, d, f, flattenSpecs, h, l, list, type Layers } from './flatten-fixtures.ts';
import type { FlattenLimits } from './flatten-limits.ts';
import { flattenTar } from './flatten.ts';
import { createScratch, type Scratch } from './scratch.ts';

let directory: string;
let scratch: Scratch;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'flatten-limits-'));
  scratch = await createScratch(directory);
});
afterEach(async () => {
  await scratch[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const xattr = (path: string, name: string, value: string, more: Partial<TarSpec> = {}): TarSpec => ({
  path,
  pax: [[`SCHILY.xattr.${name}`, value]],
  ...more,
});
const sparse: TarSpec = {
  path: 's',
  data: 'abcd',
  pax: [
    ['GNU.sparse.size', '10'],
    ['GNU.sparse.map', '0,2,6,2'],
  ],
};

describe('what a limit counts', () => {
  const cases: [string, keyof FlattenLimits, number, Layers][] = [
    ['entries of all layers', 'entries', 3, [[f('a'), f('b')], [f('a')]]],
    ['directories that are implied', 'entries', 3, [[f('a/b/c')]]],
    ['directories that links imply', 'entries', 4, [[l('k', 'x/y'), f('k/f')]]],
    ['names', 'totalMetadataBytes', 4, [[f('ab', '')], [f('cd', '')]]],
    ['link targets', 'totalMetadataBytes', 5, [[l('a', 'four')]]],
    ['attributes', 'totalMetadataBytes', 1 + 6 + 4, [[xattr('a', 'user.k', 'four')]]],
    ['sparse maps', 'totalMetadataBytes', 1 + 2 * 16, [[sparse]]],
    ['bytes of all layers together', 'layerBytes', 2 * 2048, [[f('a')], [f('b')]]],
    ['bytes of a file with its holes', 'fileBytes', 10, [[sparse]]],
    ['levels of a path', 'depth', 3, [[d('a/b/c')]]],
    ['levels behind links', 'depth', 4, [[d('a/b/c'), l('k', 'a/b/c'), d('k/d/e')]]],
    ['attributes of an entry', 'xattrBytes', 10, [[xattr('a', 'user.k', 'four')]]],
  ];
  it.each(cases)('%s (%s)', async (_, limit, value, layers) => {
    const limited = (most: number) => failure(flattenSpecs(layers, { scratch, limits: { [limit]: most } }));
    expect(await limited(value)).toBeUndefined();
    expect(await limited(value - 1)).toBe('LIMIT_EXCEEDED');
  });
});

describe('what no filesystem holds', () => {
  const long = (bytes: number) => [...Array(15).fill('n'.repeat(255)), 'm'.repeat(127), 'o'.repeat(bytes)].join('/');
  it.each<[string, Layers]>([
    ['a path of 4,096 bytes', [[f(long(128))]]],
    ['a group of 2^32 - 1', [[{ path: 'a', pax: [['gid', '4294967295']] }]]],
    ['a minor number of 2^20', [[{ path: 'a', type: '4', dev: [1, 2 ** 20] }]]],
    ['a long name behind a link', [[l('k', 'n'.repeat(256)), f('k/x')]]],
    ['an attribute with a long name', [[xattr('a', `user.${'n'.repeat(251)}`, 'v')]]],
    ['an attribute of 64 KiB and a byte', [[xattr('a', 'user.k', 'v'.repeat(65_537))]]],
  ])('is refused: %s', async (_, layers) => {
    expect(await failure(flattenSpecs(layers, { scratch, limits: { xattrBytes: 1_000_000 } }))).toBe('LAYER_INVALID');
  });

  it.each<[string, Layers]>([
    ['a path of 4,095 bytes', [[f(long(127), 'x')]]],
    ['a group of 2^32 - 2', [[{ path: 'a', pax: [['gid', '4294967294']] }]]],
    ['the largest device', [[{ path: 'a', type: '4', dev: [4095, 2 ** 20 - 1] }]]],
    ['a name of 255 bytes behind a link', [[l('k', 'n'.repeat(255)), f('k/x')]]],
    ['an attribute with a name of 255 bytes', [[xattr('a', `user.${'n'.repeat(250)}`, 'v')]]],
    ['an attribute of 64 KiB', [[xattr('a', 'user.k', 'v'.repeat(65_536))]]],
  ])('and no less: %s', async (_, layers) => {
    expect(await failure(flattenSpecs(layers, { scratch, limits: { xattrBytes: 1_000_000 } }))).toBeUndefined();
  });
});

describe('what is left out', () => {
  it('are attributes where Linux has none, and bits of links', async () => {
    const capability = ['SCHILY.xattr.security.capability', 'c'] as const;
    const { root, warnings } = await flattenSpecs(
      [
        [
          { path: 'd/', pax: [capability, ['SCHILY.xattr.system.posix_acl_default', 'a']] },
          { path: 'f', pax: [capability, ['SCHILY.xattr.system.posix_acl_default', 'a'], ['SCHILY.xattr.user.', 'v']] },
          {
            path: 'p',
            type: '6',
            pax: [
              ['SCHILY.xattr.user.k', 'v'],
              ['SCHILY.xattr.system.posix_acl_access', 'a'],
            ],
          },
          { ...l('l', 'f'), mode: 0o600, pax: [['SCHILY.xattr.system.posix_acl_access', 'a']] },
        ],
      ],
      { scratch },
    );
    const names = (path: string) => at(root, path).meta.xattrs.map(({ name }) => name);
    expect(['d', 'f', 'p', 'l'].map(names)).toEqual([
      ['system.posix_acl_default'],
      ['security.capability'],
      ['system.posix_acl_access'],
      [],
    ]);
    expect(warnings).toHaveLength(5);
    expect(at(root, 'l').meta.mode).toBe(0o777);
  });

  it('is a mark below something that is no directory, and a hard link to there is an error', async () => {
    const { root } = await flattenSpecs([[f('a')], [f('a/.wh.x', '')]], { scratch });
    expect(list(root)).toEqual({ '/a': 'a' });
    expect(await failure(flattenSpecs([[f('a'), h('b', 'a/x')]], { scratch }))).toBe('LAYER_INVALID');
  });
});

it('stops between entries that were all read when it is told to', async () => {
  const controller = new AbortController();
  const reason = new Error('enough');
  const tar = makeTar(Array.from({ length: 8192 }, (_, i) => f(`${i}`, '')));
  async function* source() {
    yield* inPieces(tar);
    controller.abort(reason);
  }
  await expect(flattenTar(source(), { scratch, signal: controller.signal })).rejects.toBe(reason);
});
