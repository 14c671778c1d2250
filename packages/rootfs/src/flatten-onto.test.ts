import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { failure, inPieces, makeTar, type TarSpec } from '@decant/oci/testing';
import { afterEach, beforeEach, expect, it } from 'vitest';

import { f, flattenSpecs, h, l, list } from './flatten-fixtures.ts';
import { flattenOnto } from './flatten.ts';
import { createScratch, type Scratch } from './scratch.ts';

let directory: string;
let scratch: Scratch;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'flatten-onto-'));
  scratch = await createScratch(directory);
});
afterEach(async () => {
  await scratch[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const layer = (specs: readonly TarSpec[]) => ({ name: 'the changes', open: () => inPieces(makeTar(specs)) });
const BASE = [f('a'), f('d/x'), f('d/y'), l('link', 'd'), f('e/z')];
const CHANGES = [
  f('.wh.a', ''),
  f('d/x', 'new'),
  f('link/more'),
  f('e/.wh..wh..opq', ''),
  f('e/own'),
  h('again', 'd/y'),
];

it('is the same as one more layer of an image', async () => {
  const { root } = await flattenSpecs([BASE], { scratch });
  const onto = list((await flattenOnto(root, [layer(CHANGES)], { scratch })).root);
  expect(onto).toEqual(list((await flattenSpecs([BASE, CHANGES], { scratch })).root));
  expect(onto).toEqual({
    '/again': 'd/y',
    '/d/more': 'link/more',
    '/d/x': 'new',
    '/d/y': 'd/y',
    '/e/own': 'e/own',
    '/link': '-> d',
  });
});

it('refuses a hostile layer', async () => {
  const { root } = await flattenSpecs([BASE], { scratch });
  expect(await failure(flattenOnto(root, [layer([f('../out')])], { scratch }))).toBe('LAYER_INVALID');
});
