import { header, makeTar, number, padded, sign, type TarSpec } from '../../packages/oci/src/testing/index.ts';

/** What an engine of Debian 12 makes of a case: umoci 0.4.7, buildah 1.28. */
export type Verdict = 'ok' | 'reject';

/** An image that is awkward or hostile. The numbers are those of the table of cases in the design. */
export interface HostileCase {
  readonly number: number;
  readonly name: string;
  /** Lowest first: entries, or a whole archive. */
  readonly layers: readonly (readonly TarSpec[] | Uint8Array)[];
  /** What is in the image then (see `list` of the fixtures), or the code of the error. */
  readonly expected: Readonly<Record<string, string>> | 'LAYER_INVALID' | 'LIMIT_EXCEEDED';
  readonly umoci?: Verdict;
  readonly buildah?: Verdict;
}

const f = (path: string, data = path, more: Partial<TarSpec> = {}): TarSpec => ({ path, data, ...more });
const l = (path: string, link: string): TarSpec => ({ path, type: '2', link });
const h = (path: string, link: string, more: Partial<TarSpec> = {}): TarSpec => ({ path, type: '1', link, ...more });
const d = (path: string): TarSpec => ({ path: `${path}/` });
const pax = (path: string, key: string, value: string | Uint8Array, more: Partial<TarSpec> = {}): TarSpec => ({
  path,
  pax: [[key, value]],
  ...more,
});
const both = (verdict: Verdict) => ({ umoci: verdict, buildah: verdict });
const latin = (text: string) => Buffer.from(text).toString('latin1');

/** The cases; `outside` is a directory of this machine that none of them may touch. */
export function hostileCases(outside: string): HostileCase[] {
  const up = `${'../'.repeat(30)}${outside.slice(1)}`;
  return [
    {
      number: 1,
      name: 'wh-file',
      layers: [[f('d/a'), f('d/b')], [f('d/.wh.a', '')]],
      expected: { '/d/b': 'd/b' },
      ...both('ok'),
    },
    { number: 3, name: 'wh-missing', layers: [[f('a')], [f('.wh.b', '')]], expected: { '/a': 'a' }, ...both('ok') },
    {
      number: 5,
      name: 'wh-same-layer-before',
      layers: [[f('a', 'old')], [f('.wh.a', ''), f('a', 'new')]],
      expected: { '/a': 'new' },
      ...both('ok'),
    },
    {
      number: 7,
      name: 'opq',
      layers: [[f('d/a')], [f('d/.wh..wh..opq', ''), f('d/b')]],
      expected: { '/d/b': 'd/b' },
      ...both('ok'),
    },
    {
      number: 9,
      name: 'opq-nested',
      layers: [
        [f('d/y'), f('d/s/z')],
        [d('d/s'), f('d/s/.wh..wh..opq', '')],
      ],
      expected: { '/d/s': 'dir', '/d/y': 'd/y' },
      ...both('ok'),
    },
    {
      number: 11,
      name: 'opq-on-absent-dir',
      layers: [[f('a')], [d('n'), f('n/.wh..wh..opq', ''), f('n/b')]],
      expected: { '/a': 'a', '/n/b': 'n/b' },
      ...both('ok'),
    },
    {
      number: 13,
      name: 'wh-nonempty-content',
      layers: [[f('a'), f('b')], [f('.wh.a', 'content')]],
      expected: { '/b': 'b' },
      ...both('ok'),
    },
    { number: 15, name: 'wh-only-prefix', layers: [[f('.wh.', '')]], expected: 'LAYER_INVALID', ...both('reject') },
    {
      number: 17,
      name: 'wh-dotdot',
      layers: [[f('d/a')], [f('d/.wh...', '')]],
      expected: 'LAYER_INVALID',
      ...both('reject'),
    },
    {
      number: 19,
      name: 'wh-through-symlink',
      layers: [[f('u/x'), l('k', 'u')], [f('k/.wh.x', '')]],
      expected: { '/k': '-> u', '/u': 'dir' },
      ...both('ok'),
    },
    {
      number: 21,
      name: 'file-over-dir',
      layers: [[f('d/a'), f('d/b/c')], [f('d')]],
      expected: { '/d': 'd' },
      ...both('ok'),
    },
    {
      number: 23,
      name: 'dir-over-symlink',
      layers: [
        [f('u/x'), l('k', 'u')],
        [d('k'), f('k/y')],
      ],
      expected: { '/k/y': 'k/y', '/u/x': 'u/x' },
      ...both('ok'),
    },
    {
      number: 25,
      name: 'file-under-symlinked-parent',
      layers: [[d('usr'), d('usr/lib'), l('lib', 'usr/lib')], [f('lib/x')]],
      expected: { '/lib': '-> usr/lib', '/usr/lib/x': 'lib/x' },
      ...both('ok'),
    },
    {
      number: 27,
      name: 'symlink-over-nonempty-then-file',
      layers: [
        [d('e'), f('d/a')],
        [l('d', 'e'), f('d/x')],
      ],
      expected: { '/d': '-> e', '/e/x': 'd/x' },
      umoci: 'ok',
    },
    { number: 29, name: 'implicit-parents', layers: [[f('x/y/z')]], expected: { '/x/y/z': 'x/y/z' }, ...both('ok') },
    {
      number: 31,
      name: 'dup-dir-file',
      layers: [[d('d'), f('d/a'), f('d', 'file')]],
      expected: { '/d': 'file' },
      umoci: 'ok',
      buildah: 'reject',
    },
    {
      number: 33,
      name: 'abs-names',
      layers: [[f('/a'), f('/d/b')]],
      expected: { '/a': '/a', '/d/b': '/d/b' },
      ...both('ok'),
    },
    {
      number: 35,
      name: 'hardlink-same-layer',
      layers: [[f('a', 'x', { mode: 0o4755, uid: 9 }), h('b', 'a', { mode: 0o600, uid: 1 })]],
      expected: { '/a': 'x', '/b': 'x' },
      ...both('ok'),
    },
    {
      number: 37,
      name: 'hardlink-then-replace',
      layers: [[f('a', 'old'), h('b', 'a')], [f('a', 'new')]],
      expected: { '/a': 'new', '/b': 'old' },
      ...both('ok'),
    },
    {
      number: 39,
      name: 'hardlink-to-symlink',
      layers: [[l('s', 'nowhere'), h('t', 's')]],
      expected: { '/s': '-> nowhere', '/t': '-> nowhere' },
      ...both('ok'),
    },
    {
      number: 41,
      name: 'hardlink-forward',
      layers: [[h('b', 'a'), f('a')]],
      expected: 'LAYER_INVALID',
      ...both('reject'),
    },
    {
      number: 43,
      name: 'hardlink-to-dir',
      layers: [[d('a'), h('b', 'a')]],
      expected: 'LAYER_INVALID',
      ...both('reject'),
    },
    {
      number: 45,
      name: 'setuid-nonroot',
      layers: [[f('s', 's', { mode: 0o6755, uid: 1000, gid: 1000 })]],
      expected: { '/s': 's' },
      ...both('ok'),
    },
    {
      number: 47,
      name: 'big-uid',
      layers: [[f('b', 'b', { uid: 4_000_000, gid: 4_000_000 })]],
      expected: { '/b': 'b' },
      ...both('ok'),
    },
    {
      number: 49,
      name: 'xattr-user',
      layers: [[pax('x', 'SCHILY.xattr.user.k', Buffer.from([0, 255, 10, 61]), { data: 'x' })]],
      expected: { '/x': 'x' },
      ...both('ok'),
    },
    {
      number: 51,
      name: 'xattr-libarchive',
      layers: [[pax('x', 'LIBARCHIVE.xattr.user.k', 'dg==', { data: 'x' })]],
      expected: { '/x': 'x' },
      ...both('ok'),
    },
    {
      number: 53,
      name: 'xattr-on-symlink',
      layers: [[{ ...l('s', 't'), pax: [['SCHILY.xattr.user.k', 'v']] }]],
      expected: { '/s': '-> t' },
      ...both('reject'),
    },
    {
      number: 55,
      name: 'dev-whiteout-00',
      layers: [[f('x')], [{ path: 'x', type: '3', dev: [0, 0] }]],
      expected: 'LAYER_INVALID',
      ...both('ok'),
    },
    {
      number: 57,
      name: 'long-name',
      layers: [[f(`${'a'.repeat(200)}/${'b'.repeat(200)}/c`, 'x')]],
      expected: { [`/${'a'.repeat(200)}/${'b'.repeat(200)}/c`]: 'x' },
      ...both('ok'),
    },
    { number: 59, name: 'name-256', layers: [[f('n'.repeat(256), '')]], expected: 'LAYER_INVALID', ...both('reject') },
    {
      number: 61,
      name: 'utf8-name',
      layers: [[f('\u00e9', '1'), f('e\u0301', '2')]],
      expected: { [`/${latin('\u00e9')}`]: '1', [`/${latin('e\u0301')}`]: '2' },
      ...both('ok'),
    },
    {
      number: 63,
      name: 'mtime-neg',
      layers: [[pax('old', 'mtime', '-86400.5', { data: 'o' })]],
      expected: { '/old': 'o' },
      ...both('ok'),
    },
    { number: 65, name: 'empty-layer', layers: [[f('a')], []], expected: { '/a': 'a' }, ...both('ok') },
    {
      number: 67,
      name: 'trav-dotdot',
      layers: [[f(`${up}/evil`, 'x')]],
      expected: 'LAYER_INVALID',
      ...both('ok'),
    },
    { number: 69, name: 'trav-mid', layers: [[d('d'), f('d/../ok', 'x')]], expected: 'LAYER_INVALID', ...both('ok') },
    {
      number: 71,
      name: 'trav-symlink-rel',
      layers: [[l('l', '../../..'), f('l/t')]],
      expected: { '/l': '-> ../../..', '/t': 'l/t' },
      umoci: 'ok',
    },
    {
      number: 73,
      name: 'trav-symlink-chain',
      layers: [[l('a', 'b'), l('b', outside), f('a/evil', 'x')]],
      expected: { '/a': '-> b', '/b': `-> ${outside}`, [`${outside}/evil`]: 'x' },
      umoci: 'ok',
      buildah: 'reject',
    },
    {
      number: 75,
      name: 'hl-outside-abs',
      layers: [[h('b', `${outside}/victim`)]],
      expected: 'LAYER_INVALID',
      ...both('reject'),
    },
    {
      number: 77,
      name: 'hl-via-symlink',
      layers: [[l('k', outside), h('b', 'k/victim')]],
      expected: 'LAYER_INVALID',
      ...both('reject'),
    },
    {
      number: 79,
      name: 'root-symlink',
      layers: [[l('.', 'x')]],
      expected: 'LAYER_INVALID',
      umoci: 'reject',
      buildah: 'ok',
    },
    {
      number: 81,
      name: 'chmod-via-symlink',
      layers: [[l('e', `${outside}/victim`), f('e', 'x', { mode: 0o777 })]],
      expected: { '/e': 'x' },
      umoci: 'ok',
      buildah: 'reject',
    },
    {
      number: 83,
      name: 'wh-outside',
      layers: [[f('a')], [f(`${up}/.wh.victim`, '')]],
      expected: 'LAYER_INVALID',
      ...both('ok'),
    },
    {
      number: 85,
      name: 'symlink-self-loop',
      layers: [[l('l', 'l'), f('l/x')]],
      expected: 'LAYER_INVALID',
      ...both('reject'),
    },
    {
      number: 87,
      name: 'nul-in-name',
      layers: [[pax('a', 'path', 'a\0b')]],
      expected: 'LAYER_INVALID',
      ...both('reject'),
    },
    {
      number: 89,
      name: 'pax-size-mismatch',
      // The header says 0 bytes and the record 512: whoever believes the header reads an entry out of the data.
      layers: [[{ path: 'a', pax: [['size', '512']], data: header({ path: 'smuggled' }, 0), size: 3 }, f('b')]],
      expected: 'LAYER_INVALID',
    },
    {
      number: 91,
      name: 'pax-bad-record',
      layers: [Buffer.concat([paxBlocks('99 path=short\n'), makeTar([f('a')])])],
      expected: 'LAYER_INVALID',
    },
    { number: 93, name: 'gnu-sparse-map', layers: [endlessSparseMap()], expected: 'LIMIT_EXCEEDED' },
    {
      number: 95,
      name: 'size-negative',
      layers: [[f('a', '', { patch: (block) => block.fill(0xff, 124, 136) })]],
      expected: 'LAYER_INVALID',
    },
    {
      number: 97,
      name: 'trailing-garbage',
      layers: [Buffer.concat([makeTar([f('a')]), makeTar([f('not-seen')]), Buffer.alloc(700, 'x')])],
      expected: { '/a': 'a' },
    },
    { number: 99, name: 'checksum-bad', layers: [brokenChecksum()], expected: 'LAYER_INVALID' },
    {
      number: 107,
      name: 'deep-path',
      layers: [[f(`${'a/'.repeat(1000)}x`, '')]],
      expected: 'LIMIT_EXCEEDED',
    },
    {
      number: 107,
      name: 'deeper-path',
      layers: [[f(`${'a/'.repeat(10_000)}x`, '')]],
      expected: 'LAYER_INVALID',
    },
  ];
}

function paxBlocks(records: string): Buffer {
  const bytes = Buffer.from(records);
  return Buffer.concat([header({ path: 'PaxHeaders/x', type: 'x' }, bytes.length), padded(bytes)]);
}

/** An entry of the old GNU sparse format whose map goes on for 1.3 million runs. */
function endlessSparseMap(): Buffer {
  const first = header({ path: 's', type: 'S', patch: gnuSparse }, 0);
  const more = Buffer.alloc(512 * 62_000);
  for (let at = 0; at < more.length; at += 512) {
    for (let i = 0; i < 21; i++) {
      number(more, at + i * 24, 12, (at / 512) * 21 + i + 4);
      number(more, at + i * 24 + 12, 12, 0);
    }
    more[at + 504] = 1;
  }
  return Buffer.concat([first, more, Buffer.alloc(1024)]);
}

function gnuSparse(block: Buffer): void {
  block.write('ustar  \0', 257, 'latin1');
  for (let i = 0; i < 4; i++) {
    number(block, 386 + i * 24, 12, i);
    number(block, 398 + i * 24, 12, 0);
  }
  block[482] = 1;
  number(block, 483, 12, 2 ** 31);
  sign(block);
}

function brokenChecksum(): Buffer {
  const tar = makeTar([f('a')]);
  tar[0]! ^= 1;
  return tar;
}
