import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { failure, type TarSpec } from '@decant/oci/testing';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { d, f, flattenSpecs, list, type Layers } from './flatten-fixtures.ts';
import { createScratch, type Scratch } from './scratch.ts';

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

const flatten = (layers: Layers) => flattenSpecs(layers, { scratch });

describe('flattenImage, any layers', () => {
  const names = fc.constantFrom('a', 'b', 'c', 'a/a', 'a/b', 'b/a', 'b/c', 'c/a/b');
  const step = fc.record({ path: names, what: fc.constantFrom('file', 'dir', 'whiteout', 'opaque') });
  const layer = fc.uniqueArray(step, { maxLength: 6, selector: ({ path, what }) => `${what === 'whiteout'}${path}` });

  it('agrees with a model of whole paths', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(layer, { maxLength: 4 }), async (layers) => {
        let model: Map<string, string> | undefined = new Map();
        const specs: TarSpec[][] = [];
        for (const [i, steps] of layers.entries()) {
          specs.push(steps.map((each) => specOf(each, i)));
          model = model === undefined ? undefined : applyToModel(model, steps, i);
        }
        const result = await flatten(specs).then(
          ({ root }) => list(root),
          (error: { code: string }) => error.code,
        );
        if (model === undefined) expect(result).toBe('LAYER_INVALID');
        else expect(result).toEqual(leaves(model));
      }),
      { numRuns: 400 },
    );
  });

  it('never hangs, escapes or fails without a code', async () => {
    const name = fc.oneof(
      fc.constantFrom('a', 'b', 'a/b', './', '/', '..', 'l', 'l/x', '.wh.a', 'l/.wh..wh..opq', '.wh..wh.x/y'),
      fc.array(fc.constantFrom('a', 'l', '.', '..', '', '.wh.', 'x'), { maxLength: 5 }).map((parts) => parts.join('/')),
    );
    const spec = fc.record({ path: name, type: fc.constantFrom('0', '1', '2', '3', '5', '6'), link: name });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(spec, { maxLength: 8 }), { maxLength: 3 }), async (layers) => {
        const result = await failure(flatten(layers).then(({ root }) => list(root)));
        expect([undefined, 'LAYER_INVALID']).toContain(result);
      }),
      { numRuns: 400 },
    );
  });
});

interface Step {
  readonly path: string;
  readonly what: string;
}

function specOf({ path, what }: Step, layer: number): TarSpec {
  if (what === 'file') return f(path, String(layer));
  if (what === 'dir') return d(path);
  if (what === 'opaque') return f(`${path}/.wh..wh..opq`, '');
  const cut = path.lastIndexOf('/') + 1;
  return f(`${path.slice(0, cut)}.wh.${path.slice(cut)}`, '');
}

/** The rules once more, on a flat map of paths; undefined when something lies below a file. */
function applyToModel(before: ReadonlyMap<string, string>, steps: readonly Step[], layer: number) {
  const model = new Map(before);
  const clear = (path: string) => {
    for (const key of model.keys()) if (key.startsWith(`${path}/`)) model.delete(key);
  };
  for (const { path, what } of steps) {
    if (what === 'whiteout') model.delete(path);
    if (what === 'whiteout' || what === 'opaque') clear(path);
  }
  for (const { path, what } of steps) {
    if (what !== 'file' && what !== 'dir') continue;
    const parts = path.split('/');
    for (let i = 1; i < parts.length; i++) {
      const parent = parts.slice(0, i).join('/');
      if ((model.get(parent) ?? 'dir') !== 'dir') return undefined;
      model.set(parent, 'dir');
    }
    if (what === 'file') clear(path);
    model.set(path, what === 'file' ? String(layer) : 'dir');
  }
  return model;
}

function leaves(model: ReadonlyMap<string, string>): Record<string, string> {
  const shown = [...model].filter(
    ([path, what]) => what !== 'dir' || ![...model.keys()].some((key) => key.startsWith(`${path}/`)),
  );
  return Object.fromEntries(shown.map(([path, what]) => [`/${path}`, what]));
}
