import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { loadNodeHashProvider } from '@decant/cas/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { shortCorpus } from './corpus-short.ts';
import type { Corpus } from './corpus.ts';
import { cutImage, noveltyOf, type Novelty } from './share-cuts.ts';
import { cutOwn, manifestShare, newStoredShare, withPlan } from './share-own.ts';

const hash = await loadNodeHashProvider();

describe('the small corpus', () => {
  let folder: string;
  let corpus: Corpus;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'decant-share-'));
    corpus = await shortCorpus(folder);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const own = (archive: string) => cutOwn(archive, { hash, scratchFolder: folder, store: true });
  const pair = async (name: string) => {
    const { before, after } = corpus.pairs.find((one) => one.name === name)!;
    const [a, b] = [await own(before.archive), await own(after.archive)];
    return { a, b, novelty: noveltyOf(a, b) };
  };
  /** The same images, cut without hints. */
  const withoutHints = async (name: string): Promise<Novelty> => {
    const { before, after } = corpus.pairs.find((one) => one.name === name)!;
    const cut = (archive: string) =>
      withPlan(archive, { hash, scratchFolder: folder }, (plan) =>
        cutImage(plan.pieces(), { layout: 'foreign', hash }),
      );
    return noveltyOf(await cut(before.archive), await cut(after.archive));
  };

  it('has nothing new when a tree is packed in another order', async () => {
    expect((await pair('extracted again')).novelty).toMatchObject({ newBytes: 0, newChunks: 0, pageIdealBytes: 0 });
  });

  it('has little new when a file grows by two pages', async () => {
    const { a, b, novelty } = await pair('one file edited');
    // The superblock, a part of the metadata zone, and the group of the file.
    expect(novelty.newChunks).toBeGreaterThan(0);
    expect(novelty.newChunks).toBeLessThanOrEqual(4);
    expect(newStoredShare(a, b)).toBeLessThan(0.06);
    expect(novelty.pageIdealBytes).toBeLessThan(novelty.newBytes);
  });

  it('has little more new than new pages when packages are added, and less than without hints', async () => {
    const { novelty } = await pair('two packages more');
    expect(novelty.newBytes).toBeGreaterThan(2 * 150_000);
    expect(novelty.newBytes / novelty.pageIdealBytes).toBeLessThan(2.5);
    expect(novelty.newChunks).toBeLessThan((await withoutHints('two packages more')).newChunks);
  });

  it('has a manifest that is small beside it', async () => {
    const { b } = await pair('one file edited');
    expect(manifestShare(b)).toBeLessThanOrEqual(0.00025);
    expect(b.contentBytes).toBeGreaterThan(5_000_000);
  });
});
