import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { ProgressEvent } from '@decant/core';
import { failure, inPieces, makeTar } from '@decant/oci/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { at, d, f, flattenSpecs, h, l, list, read, type Layers } from './flatten-fixtures.ts';
import { flattenTar, type FlattenOptions } from './flatten.ts';
import { createScratch, type Scratch } from './scratch.ts';
import type { FileNode } from './tree.ts';

let directory: string;
let scratch: Scratch;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'flatten-'));
  scratch = await createScratch(directory);
});
afterAll(async () => {
  await scratch[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const flatten = (layers: Layers, options: Partial<FlattenOptions> = {}) =>
  flattenSpecs(layers, { scratch, ...options });

describe('flattenImage, accepted', () => {
  const cases: [string, Layers, Record<string, string>][] = [
    ['wh-file', [[f('d/a'), f('d/b')], [f('d/.wh.a', '')]], { '/d/b': 'd/b' }],
    ['wh-dir', [[f('d/a'), f('e')], [f('.wh.d', '')]], { '/e': 'e' }],
    ['wh-missing', [[f('a')], [f('.wh.b', ''), f('x/.wh.y', '')]], { '/a': 'a' }],
    ['wh-same-layer-before', [[f('a', 'old')], [f('.wh.a', ''), f('a', 'new')]], { '/a': 'new' }],
    ['wh-same-layer-after', [[f('a', 'old')], [f('a', 'new'), f('.wh.a', '')]], { '/a': 'new' }],
    ['wh-parent-then-new-child', [[f('d/a')], [f('d/b'), f('.wh.d', '')]], { '/d/b': 'd/b' }],
    ['opq', [[f('d/a')], [f('d/.wh..wh..opq', ''), f('d/b')]], { '/d/b': 'd/b' }],
    ['opq-last', [[f('d/a')], [f('d/b'), f('d/.wh..wh..opq', '')]], { '/d/b': 'd/b' }],
    ['opq-nested', [[f('d/y'), f('d/s/z')], [f('d/s/.wh..wh..opq', '')]], { '/d/s': 'dir', '/d/y': 'd/y' }],
    ['opq-on-absent-dir', [[f('a')], [d('n'), f('n/.wh..wh..opq', ''), f('n/b')]], { '/a': 'a', '/n/b': 'n/b' }],
    [
      'opq-root',
      [
        [f('a'), f('d/b')],
        [f('.wh..wh..opq', ''), f('c')],
      ],
      { '/c': 'c' },
    ],
    ['wh-nonempty-content', [[f('a'), f('b')], [f('.wh.a', 'content')]], { '/b': 'b' }],
    ['wh-two-lower-layers', [[f('a', '1')], [f('a', '2')], [f('.wh.a', '')]], {}],
    ['wh-then-back', [[f('a', '1')], [f('.wh.a', '')], [f('a', '3')]], { '/a': '3' }],
    ['wh-through-symlink', [[f('u/x'), l('k', 'u')], [f('k/.wh.x', '')]], { '/k': '-> u', '/u': 'dir' }],
    [
      'wh-below-replaced-link',
      [
        [f('u/x'), l('k', 'u')],
        [f('k/.wh.x', ''), d('k')],
      ],
      { '/k': 'dir', '/u/x': 'u/x' },
    ],
    ['wh-driver-files', [[f('a')], [d('.wh..wh.plnk'), f('.wh..wh.plnk/1.2'), f('.wh..wh.aufs', '')]], { '/a': 'a' }],
    ['file-over-dir', [[f('d/a'), f('d/b/c')], [f('d')]], { '/d': 'd' }],
    ['dir-over-file', [[f('d')], [d('d'), f('d/a')]], { '/d/a': 'd/a' }],
    [
      'dir-over-symlink',
      [
        [f('u/x'), l('k', 'u')],
        [d('k'), f('k/y')],
      ],
      { '/k/y': 'k/y', '/u/x': 'u/x' },
    ],
    ['file-over-symlink', [[f('t', 'target'), l('k', 't')], [f('k', 'new')]], { '/k': 'new', '/t': 'target' }],
    [
      'file-under-symlinked-parent',
      [[d('usr/lib'), l('lib', 'usr/lib')], [f('lib/x')]],
      { '/lib': '-> usr/lib', '/usr/lib/x': 'lib/x' },
    ],
    [
      'absolute-and-dotdot-link-parents',
      [[d('a/b'), l('a/k', '../../../a/b'), l('m', '/a/k/.')], [f('m/x')]],
      { '/a/b/x': 'm/x', '/a/k': '-> ../../../a/b', '/m': '-> /a/k/.' },
    ],
    ['symlink-over-nonempty-then-file', [[f('d/a')], [l('d', 'e'), f('d/x')]], { '/d': '-> e', '/e/x': 'd/x' }],
    ['dup-dir-file', [[d('d'), f('d/a'), f('d', 'file')]], { '/d': 'file' }],
    [
      'abs-names',
      [[f('/a'), f('//b'), f('./c'), f('./d/./e')]],
      { '/a': '/a', '/b': '//b', '/c': './c', '/d/e': './d/./e' },
    ],
    ['hardlink-to-symlink', [[l('s', 'nowhere'), h('t', 's')]], { '/s': '-> nowhere', '/t': '-> nowhere' }],
    ['hardlink-to-lower-layer', [[f('a')], [h('b', './a')]], { '/a': 'a', '/b': 'a' }],
    ['hardlink-to-itself', [[f('a'), h('a', 'a')]], { '/a': 'a' }],
    ['hardlink-then-replace', [[f('a', 'old'), h('b', 'a')], [f('a', 'new')]], { '/a': 'new', '/b': 'old' }],
    ['hardlink-then-whiteout', [[f('a', 'old'), h('b', 'a')], [f('.wh.a', '')]], { '/b': 'old' }],
    [
      'hardlink-through-linked-parent',
      [[f('u/x'), l('k', 'u'), h('y', 'k/x')]],
      { '/k': '-> u', '/u/x': 'u/x', '/y': 'u/x' },
    ],
    ['empty-layer', [[f('a')], []], { '/a': 'a' }],
    [
      'devices',
      [
        [
          { path: 'null', type: '3', dev: [1, 3] },
          { path: 'sda', type: '4', dev: [8, 0] },
          { path: 'p', type: '6' },
        ],
      ],
      { '/null': 'character-device 1/3', '/p': 'fifo', '/sda': 'block-device 8/0' },
    ],
    [
      'utf8-name',
      [[f('\u00e9'), f('e\u0301')]],
      { [`/${lat('\u00e9')}`]: lat('\u00e9'), [`/${lat('e\u0301')}`]: lat('e\u0301') },
    ],
    ['trav-symlink-rel', [[l('l', '../../..'), f('l/t')]], { '/l': '-> ../../..', '/t': 'l/t' }],
    [
      'trav-symlink-chain',
      [[l('a', 'b'), l('b', '/outside'), f('a/t')]],
      { '/a': '-> b', '/b': '-> /outside', '/outside/t': 'a/t' },
    ],
    ['chmod-via-symlink', [[l('e', '/etc/shadow'), { path: 'e', data: 'x', mode: 0o777 }]], { '/e': 'x' }],
    [
      'long-name',
      [[f(`${'a'.repeat(200)}/${'b'.repeat(255)}`, 'x')]],
      { [`/${'a'.repeat(200)}/${'b'.repeat(255)}`]: 'x' },
    ],
    [
      'name-of-an-object-member',
      [[f('__proto__', '1'), f('constructor/x', '2')]],
      { '/__proto__': '1', '/constructor/x': '2' },
    ],
  ];
  it.each(cases)('%s', async (_, layers, expected) => {
    const found = list((await flatten(layers)).root);
    expect(found).toEqual(expected);
  });

  it('keeps metadata, and gives implied parents and the root a fixed one', async () => {
    const capability = Buffer.from([1, 0, 0, 2, 0, 255]);
    const { root, warnings } = await flatten([
      [
        {
          path: 'x/y/f',
          mode: 0o6755,
          uid: 4_000_000,
          gid: 4_294_967_294,
          pax: [
            ['mtime', '-1.5'],
            ['SCHILY.xattr.security.capability', capability],
            ['SCHILY.xattr.user.k', 'v'],
            ['SCHILY.xattr.system.posix_acl_access', 'acl'],
            ['SCHILY.xattr.trusted.overlay.opaque', 'y'],
            ['SCHILY.xattr.security.selinux', 'label'],
            ['LIBARCHIVE.xattr.user.z', 'dg=='],
          ],
        },
      ],
    ]);
    expect(warnings).toEqual([]);
    const { meta } = at(root, 'x/y/f');
    expect(meta).toMatchObject({
      mode: 0o6755,
      uid: 4_000_000,
      gid: 4_294_967_294,
      mtimeSeconds: -2,
      mtimeNanoseconds: 500_000_000,
    });
    expect(meta.xattrs.map(({ name }) => name)).toEqual(['security.capability', 'system.posix_acl_access', 'user.k']);
    expect(Buffer.from(meta.xattrs[0]!.value)).toEqual(capability);
    const implied = { mode: 0o755, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanoseconds: 0, xattrs: [] };
    expect(at(root, 'x').meta).toEqual(implied);
    expect(root.meta).toEqual(implied);
  });

  it('updates a directory in place and takes the root from an entry', async () => {
    const { root } = await flatten([
      [{ path: './', mode: 0o700, mtime: 5 }, { path: 'd/', mode: 0o700, uid: 3 }, f('d/a')],
      [{ path: 'd/', mode: 0o1777, mtime: 9 }],
    ]);
    expect(root.meta).toMatchObject({ mode: 0o700, mtimeSeconds: 5 });
    expect(at(root, 'd').meta).toMatchObject({ mode: 0o1777, uid: 0, mtimeSeconds: 9 });
    expect(list(root)).toEqual({ '/d/a': 'd/a' });
  });

  it('makes hard links one node that keeps its metadata', async () => {
    const target = { path: 'a', data: 'x', mode: 0o4755, uid: 9 };
    const { root } = await flatten([[target, h('b', 'a', { mode: 0o600, uid: 1 })]]);
    expect(at(root, 'b')).toBe(at(root, 'a'));
    expect(at(root, 'b').meta).toMatchObject({ mode: 0o4755, uid: 9 });
    const replaced = await flatten([[target, h('b', 'a')], [f('b', 'y')]]);
    expect(at(replaced.root, 'b')).not.toBe(at(replaced.root, 'a'));
  });

  it('drops attributes that cannot be, with a warning', async () => {
    const events: ProgressEvent[] = [];
    const pax = [['SCHILY.xattr.user.k', 'v']] as const;
    const { root, warnings } = await flatten(
      [
        [
          { ...l('s', 't'), pax },
          { path: 'f', pax: [['SCHILY.xattr.trusted.mine', 'v']] },
        ],
      ],
      { onEvent: (event) => void events.push(event) },
    );
    expect(at(root, 's').meta.xattrs).toEqual([]);
    expect(warnings).toHaveLength(2);
    expect(warnings[0]).toMatch(/"s".*"user\.k".*symlink/);
    expect(events.filter((event) => event.type === 'warning')).toHaveLength(2);
    expect(events.at(-1)).toMatchObject({ type: 'stage-finished', stage: 'layers', items: 1 });
    const many = Array.from({ length: 300 }, (_, i) => ({ ...l(`s${i}`, 't'), pax }));
    expect((await flatten([many])).warnings).toHaveLength(100);
  });

  it('keeps holes', async () => {
    const pax = [
      ['GNU.sparse.size', '1000000'],
      ['GNU.sparse.map', '0,2,4096,2'],
    ] as const;
    const { root } = await flatten([[f('before'), { path: 's', data: 'abcd', pax }]]);
    const file = at(root, 's') as FileNode;
    expect(file.sizeBytes).toBe(1_000_000);
    expect(file.extents.map(({ fileOffset, lengthBytes }) => [fileOffset, lengthBytes])).toEqual([
      [0, 2],
      [4096, 2],
    ]);
    expect(read(file).replaceAll('\0', '')).toBe('abcd');
  });

  it('reads one plain archive', async () => {
    const { root } = await flattenTar(inPieces(makeTar([f('a'), h('b', 'a')]), 100), { scratch });
    expect(list(root)).toEqual({ '/a': 'a', '/b': 'a' });
  });
});

describe('flattenImage, refused', () => {
  const deep = (levels: number) => Array.from({ length: levels }, () => 'a').join('/');
  const cases: [string, string, Layers][] = [
    ['wh-only-prefix', 'LAYER_INVALID', [[f('.wh.', '')]]],
    ['wh-dot', 'LAYER_INVALID', [[f('d/.wh..', '')]]],
    ['wh-dotdot', 'LAYER_INVALID', [[f('d/.wh...', '')]]],
    ['wh-outside', 'LAYER_INVALID', [[f('../.wh.victim', '')]]],
    ['wh-as-parent', 'LAYER_INVALID', [[f('.wh.d/x')]]],
    ['opq-as-parent', 'LAYER_INVALID', [[f('.wh..wh..opq/x')]]],
    ['wh-below-link-loop', 'LAYER_INVALID', [[l('l', 'l')], [f('l/.wh.x', '')]]],
    ['trav-dotdot', 'LAYER_INVALID', [[f('../evil')]]],
    ['trav-mid', 'LAYER_INVALID', [[f('d/../ok')]]],
    ['name-256', 'LAYER_INVALID', [[f('n'.repeat(256))]]],
    ['path-4096', 'LAYER_INVALID', [[f(`${'n'.repeat(254)}/`.repeat(16) + 'n'.repeat(17), 'x')]]],
    ['hardlink-forward', 'LAYER_INVALID', [[h('b', 'a'), f('a')]]],
    ['hardlink-to-dir', 'LAYER_INVALID', [[d('a'), h('b', 'a')]]],
    ['hardlink-to-root', 'LAYER_INVALID', [[h('b', '/')]]],
    ['hl-outside-abs', 'LAYER_INVALID', [[h('b', '/etc/passwd')]]],
    ['hl-outside-rel', 'LAYER_INVALID', [[h('b', '../etc/passwd')]]],
    ['hl-via-symlink', 'LAYER_INVALID', [[l('k', '/etc'), h('b', 'k/passwd')]]],
    ['hl-to-whiteout', 'LAYER_INVALID', [[f('a')], [f('.wh.a', ''), h('b', 'a')]]],
    ['root-symlink', 'LAYER_INVALID', [[l('.', 'x')]]],
    ['root-file', 'LAYER_INVALID', [[{ path: '/', data: 'x', type: '0' }]]],
    ['dev-whiteout-00', 'LAYER_INVALID', [[f('x')], [{ path: 'x', type: '3', dev: [0, 0] }]]],
    ['dev-number', 'LAYER_INVALID', [[{ path: 'x', type: '3', dev: [4096, 0] }]]],
    ['below-a-file', 'LAYER_INVALID', [[f('a'), f('a/b')]]],
    ['symlink-self-loop', 'LAYER_INVALID', [[l('l', 'l'), f('l/x')]]],
    [
      'symlink-long-chain',
      'LAYER_INVALID',
      [[...Array.from({ length: 41 }, (_, i) => l(`l${i}`, `l${i + 1}`)), f('l0/x')]],
    ],
    ['symlink-long-target', 'LAYER_INVALID', [[l('l', 'x'.repeat(4096))]]],
    ['uid-minus-one', 'LAYER_INVALID', [[{ path: 'a', uid: 2 ** 32 - 1 }]]],
    ['nul-in-name', 'LAYER_INVALID', [[{ path: 'a', pax: [['path', 'a\0b']] }]]],
    ['deep-path', 'LIMIT_EXCEEDED', [[f(deep(257))]]],
    ['deeper-path', 'LAYER_INVALID', [[f(deep(10_000))]]],
    ['deep-by-links', 'LIMIT_EXCEEDED', [[d(deep(200)), l('k', deep(200)), f(`k/${deep(100)}`)]]],
    ['xattr-bytes', 'LIMIT_EXCEEDED', [[{ path: 'a', pax: [['SCHILY.xattr.user.k', 'v'.repeat(70_000)]] }]]],
  ];
  it.each(cases)('%s', async (_, code, layers) => {
    expect(await failure(flatten(layers))).toBe(code);
  });

  it('says which entry of which layer, and where', async () => {
    await expect(flatten([[f('a')], [f('ok'), f('../x')]])).rejects.toMatchObject({
      message: expect.stringMatching(/"\.\.\/x".*layer 2 of 2, sha256:1/),
      details: { entry: '../x', offset: 1024, layer: 1 },
    });
  });

  it('bounds entries, also implied ones, bytes and metadata', async () => {
    const limited = (limits: FlattenOptions['limits']) => failure(flatten([[f('a/b/c/d')], [f('e')]], { limits }));
    expect(await limited({ entries: 5 })).toBeUndefined();
    expect(await limited({ entries: 4 })).toBe('LIMIT_EXCEEDED');
    expect(await limited({ layerBytes: 2000 })).toBe('LIMIT_EXCEEDED');
    expect(await limited({ totalMetadataBytes: 7 })).toBe('LIMIT_EXCEEDED');
    expect(await limited({ fileBytes: 6 })).toBe('LIMIT_EXCEEDED');
  });

  it('passes errors of the source on and stops when told to', async () => {
    const reason = new Error('enough');
    expect(await failure(flatten([[f('a')]], { signal: AbortSignal.abort(reason) }))).toBe(reason);
    const broken = new Error('source');
    async function* failing() {
      yield makeTar([f('a')]);
      throw broken;
    }
    expect(await failure(flattenTar(failing(), { scratch }))).toBe(broken);
  });
});

function lat(text: string): string {
  return Buffer.from(text).toString('latin1');
}
