import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { failure, inPieces, makeTar, type TarSpec } from '@decant/oci/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { f, l, list } from './flatten-fixtures.ts';
import { flattenOverlay, flattenTar } from './flatten.ts';
import { createScratch, type Scratch } from './scratch.ts';

let directory: string;
let scratch: Scratch;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'flatten-overlay-'));
  scratch = await createScratch(directory);
});
afterEach(async () => {
  await scratch[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const overlay = async (...layers: (readonly TarSpec[])[]) => {
  const archives = layers.map((specs, i) => ({ name: `diff ${i}`, open: () => inPieces(makeTar(specs)) }));
  return list((await flattenOverlay(archives, { scratch })).root);
};
const gone = (path: string): TarSpec => ({ path, type: '3', dev: [0, 0] });
const marked = (path: string, name: string, value: string): TarSpec => ({
  path,
  pax: [[`SCHILY.xattr.${name}`, value]],
});

describe('flattenOverlay', () => {
  it('takes devices 0/0 and marked files for whiteouts of what lies below, not of its own', async () => {
    const base = [f('a'), f('b'), f('d/x'), f('d/y'), f('n/z')];
    expect(await overlay(base, [gone('a'), { path: 'd/' }, gone('d/x'), gone('n'), gone('never')])).toEqual({
      '/b': 'b',
      '/d/y': 'd/y',
    });
    const file = { ...marked('b', 'trusted.overlay.whiteout', ''), data: '' };
    expect(await overlay([f('a'), f('b')], [file])).toEqual({ '/a': 'a' });
    expect(await overlay([f('b')], [gone('b')], [f('b', 'again')])).toEqual({ '/b': 'again' });
    // Not a whiteout: it has something in it.
    expect(await overlay([f('b')], [{ ...file, data: 'x' }])).toEqual({ '/b': 'x' });
  });

  it('takes the opaque attribute, with either prefix, and only with its value', async () => {
    for (const name of ['trusted.overlay.opaque', 'user.overlay.opaque']) {
      const upper = [marked('d/', name, 'y'), f('d/new')];
      expect(await overlay([f('d/old'), f('e')], upper)).toEqual({ '/d/new': 'd/new', '/e': 'e' });
    }
    expect(await overlay([f('d/old')], [marked('d/', 'trusted.overlay.opaque', 'x')])).toEqual({ '/d/old': 'd/old' });
  });

  it('replaces a link by the directory that stands in its place, and not what the link leads to', async () => {
    const base = [f('usr/lib/a'), l('lib', 'usr/lib')];
    const upper = [marked('lib/', 'trusted.overlay.opaque', 'y'), f('lib/b')];
    expect(await overlay(base, upper)).toEqual({ '/usr/lib/a': 'usr/lib/a', '/lib/b': 'lib/b' });
  });

  it("keeps names that look like OCI's whiteouts", async () => {
    const names = ['.wh.a', '.wh..wh..opq', '.wh.', '.wh..wh.plnk/x'];
    const kept = Object.fromEntries(names.map((name) => [`/${name}`, name]));
    const specs = names.map((name) => f(name));
    expect(await overlay([f('a')], specs)).toEqual({ '/a': 'a', ...kept });
    expect(list((await flattenTar(inPieces(makeTar([f('a'), ...specs])), { scratch })).root)).toEqual({
      '/a': 'a',
      ...kept,
    });
  });

  it('refuses what refers to names below, and devices 0/0 where there is no overlay', async () => {
    for (const name of ['trusted.overlay.redirect', 'trusted.overlay.metacopy', 'user.overlay.redirect']) {
      expect(await failure(overlay([f('a')], [marked('d/', name, '/x')]))).toBe('OCI_UNSUPPORTED');
    }
    expect(await failure(flattenTar(inPieces(makeTar([gone('a')])), { scratch }))).toBe('LAYER_INVALID');
    expect(await failure(overlay([f('a')], [{ path: './', type: '3', dev: [0, 0] }]))).toBe('LAYER_INVALID');
  });
});
