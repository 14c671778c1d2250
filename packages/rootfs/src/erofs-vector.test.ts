import { readFile } from 'node:fs/promises';

import { loadHashProvider } from '@decant/cas';
import { describe, expect, it } from 'vitest';

import { planErofs } from './erofs-plan.ts';
import { vectorTree, type VectorEntry } from './erofs-vector.fixture.ts';
import { collect } from './trees.fixture.ts';

interface Vector {
  readonly entries: Readonly<Record<string, VectorEntry>>;
  readonly sizeBytes: number;
  readonly metadataBytes: number;
  readonly cuts: readonly number[];
  readonly blake3: string;
}

const vector = JSON.parse(await readFile(new URL('../vectors/erofs.json', import.meta.url), 'utf8')) as Vector;

describe('the committed vector of the layout', () => {
  it('is what the writer makes, to the byte', async () => {
    const hash = await loadHashProvider();
    const plan = await planErofs(vectorTree(vector.entries), { hash });
    const { bytes, cuts } = await collect(plan.pieces());
    const { sizeBytes, metadataBytes } = plan;
    const blake3 = Buffer.from(hash.blake3(bytes)).toString('hex');
    expect({ entries: vector.entries, sizeBytes, metadataBytes, cuts, blake3 }).toEqual(vector);
  });

  it('has every rule of the page in it', () => {
    const { cuts, metadataBytes } = vector;
    expect(cuts.slice(0, 3)).toEqual([4096, 131_072, 262_144]);
    const data = cuts.filter((cut) => cut >= metadataBytes);
    const distances = data.slice(1).map((cut, i) => cut - data[i]!);
    // Pieces of a program, a whole large file, groups that end by name and by package, more sections than one.
    expect(distances.filter((bytes) => bytes === 245_760).length).toBeGreaterThan(10);
    expect(distances.filter((bytes) => bytes < 65_536).length).toBeGreaterThan(1);
    expect(data.filter((cut) => cut % 2 ** 20 === 0).length).toBeGreaterThan(0);
  });
});
