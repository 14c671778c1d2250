import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

import type { HashProvider } from '@decant/cas';
import { loadNodeHashProvider } from '@decant/cas/node';
import { MIB } from '@decant/core';

import { ROOT } from '../scripts/workspace.ts';
import { shortCorpus } from './corpus-short.ts';
import { rootfsCorpus, unpackTree, type Corpus, type CorpusTree, type Relation } from './corpus.ts';
import type { BenchResult, Goal } from './report.ts';
import { compareChain, layoutOf } from './share-chain.ts';
import { cutImage, filePieces, noveltyOf, type CutImage, type Novelty } from './share-cuts.ts';
import { storeImage, traceGuest, type GuestCommand } from './share-guest.ts';
import { cutOwn, manifestShare, newStoredShare, withPlan, type OwnImage } from './share-own.ts';
import { makeErofs, makeExt4 } from './share-peers.ts';

/** Bounds of design goals; fields without one are only reported. */
const GOALS: Readonly<Record<string, Goal>> = {
  mean_chunk_kib: { least: 192, most: 256 },
  rebuild_new_bytes: { most: 0 },
  edit_new_stored_share: { most: 0.007 },
  new_vs_ext4_worst: { most: 1 / 2.5 },
  new_vs_ext4_geomean: { most: 1 / 5 },
  vs_page_ideal_worst: { most: 2.5 },
  lsr_wire_mib_10k_inodes: { most: 2.2 },
  shell_wire_mib: { most: 1.4 },
  python_wire_mib: { most: 5 },
  node_wire_mib: { most: 18.5 },
  lsr_fetches_10k_inodes: { most: 30 },
  shell_fetches: { most: 16 },
  python_fetches: { most: 65 },
  node_fetches: { most: 240 },
  manifest_share_of_content: { most: 0.00025 },
  oci_to_admitted_vs_tool_chain: { most: 0.7 },
  peak_rss_mb: { most: 250 },
};

export interface ShareOptions {
  /** A small corpus made by code, no guest and no tool chain: shows that everything works; held to nothing. */
  readonly short: boolean;
}

interface TreeCuts {
  readonly own: OwnImage;
  readonly ext4: CutImage;
  readonly erofs: CutImage;
}

interface PairResult {
  readonly name: string;
  readonly relation: Relation;
  readonly own: Novelty;
  readonly ext4: Novelty;
  readonly erofs: Novelty;
}

/** How much versions of an image share, against mkfs.ext4 and mkfs.erofs under `foreign` cuts, and what a start fetches. */
export async function benchShare({ short }: ShareOptions): Promise<BenchResult> {
  const cache = join(ROOT, '.cache');
  await mkdir(cache, { recursive: true });
  const folder = await mkdtemp(join(cache, 'bench-share-'));
  try {
    const hash = await loadNodeHashProvider();
    const corpus = short ? await shortCorpus(folder) : await rootfsCorpus();
    const sharing = await measureSharing(corpus, hash, folder);
    const starts = short ? {} : await measureStarts(corpus, hash, folder);
    const chain = short ? undefined : await compareChain(await layoutOf(treeOf(corpus, 'mixture').archive), folder, 1);
    return {
      name: 'share',
      short,
      input: { description: corpus.description, trees: corpus.trees.length, pairs: corpus.pairs.length },
      fields: {
        ...sharing.fields,
        ...starts,
        oci_to_admitted_vs_tool_chain: chain?.ratio ?? null,
        peak_rss_mb: chain?.peakMb ?? null,
      },
      goals: GOALS,
      absolute:
        chain === undefined ? {} : { import_seconds: chain.importSeconds, tool_chain_seconds: chain.toolsSeconds },
      details: { pairs: sharing.pairs, trees: sharing.trees },
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measureSharing(corpus: Corpus, hash: HashProvider, folder: string) {
  const cuts = new Map<string, TreeCuts>();
  const trees: Record<string, unknown>[] = [];
  for (const [i, tree] of corpus.trees.entries()) {
    console.error(`tree ${i + 1} of ${corpus.trees.length}: ${tree.name}`);
    const one = await cutTree(tree, hash, folder);
    cuts.set(tree.name, one);
    const { chunkCount, contentBytes, virtualBytes } = one.own;
    trees.push({ name: tree.name, chunkCount, contentBytes, virtualBytes });
  }
  const pairs: PairResult[] = [];
  const fields: Record<string, number | null> = {};
  for (const { name, relation, before, after } of corpus.pairs) {
    const [a, b] = [cuts.get(before.name)!, cuts.get(after.name)!];
    pairs.push({
      ...{ name, relation },
      own: noveltyOf(a.own, b.own),
      ext4: noveltyOf(a.ext4, b.ext4),
      erofs: noveltyOf(a.erofs, b.erofs),
    });
    if (relation === 'edit') fields['edit_new_stored_share'] = newStoredShare(a.own, b.own);
  }
  const own = [...cuts.values()].map((one) => one.own);
  const sum = (value: (image: OwnImage) => number) => own.reduce((total, image) => total + value(image), 0);
  const of = (...relations: readonly Relation[]) => pairs.filter(({ relation }) => relations.includes(relation));
  const againstExt4 = of('version', 'edit').map((pair) => pair.own.newBytes / pair.ext4.newBytes);
  const geometricMean = Math.exp(againstExt4.reduce((total, ratio) => total + Math.log(ratio), 0) / againstExt4.length);
  return {
    pairs,
    trees,
    fields: {
      mean_chunk_kib: sum(({ contentBytes }) => contentBytes) / sum(({ chunkCount }) => chunkCount) / 1024,
      rebuild_new_bytes: of('same').reduce((total, pair) => total + pair.own.newBytes, 0),
      ...fields,
      new_vs_ext4_worst: Math.max(...againstExt4),
      new_vs_ext4_geomean: geometricMean,
      // A whole runtime more: most of what is new is new files, and no layout makes it less.
      new_vs_ext4_runtime_added: worst(of('addition'), (pair) => pair.own.newBytes / pair.ext4.newBytes),
      // Where there is little else, mkfs.ext4 has little to move.
      new_vs_ext4_modules_alone: worst(of('part'), (pair) => pair.own.newBytes / pair.ext4.newBytes),
      new_vs_erofs_worst: worst(of('version', 'edit'), (pair) => pair.own.newBytes / pair.erofs.newBytes),
      // One edited page costs at least a chunk: that has its own goal.
      vs_page_ideal_worst: worst(
        of('version', 'addition', 'part'),
        (pair) => pair.own.newBytes / pair.own.pageIdealBytes,
      ),
      rebuilt_independently_new_share: worst(of('rebuild'), (pair) => pair.own.newShare),
      manifest_share_of_content: Math.max(...own.map((image) => manifestShare(image))),
    },
  };
}

function worst(pairs: readonly PairResult[], value: (pair: PairResult) => number): number | null {
  return pairs.length === 0 ? null : Math.max(...pairs.map((pair) => value(pair)));
}

async function cutTree(tree: CorpusTree, hash: HashProvider, folder: string): Promise<TreeCuts> {
  const own = await cutOwn(tree.archive, { hash, scratchFolder: folder, store: tree.name.endsWith('-edited') });
  const root = join(folder, 'tree');
  const peer = async (make: (tree: string, file: string) => Promise<void>): Promise<CutImage> => {
    const file = join(folder, 'peer.img');
    await make(root, file);
    const image = await cutImage(filePieces(file), { layout: 'foreign', hash });
    await rm(file);
    return image;
  };
  await mkdir(root);
  await unpackTree(tree.archive, root);
  const ext4 = await peer(makeExt4);
  const erofs = await peer(makeErofs);
  await rm(root, { recursive: true });
  return { own, ext4, erofs };
}

async function measureStarts(corpus: Corpus, hash: HashProvider, scratchFolder: string) {
  const fields: Record<string, number> = {};
  const starts: readonly [tree: string, commands: readonly GuestCommand[]][] = [
    ['python', ['lsr', 'shell', 'python']],
    ['node', ['node']],
  ];
  for (const [name, commands] of starts) {
    const { archive } = treeOf(corpus, name);
    const image = await withPlan(archive, { hash, scratchFolder }, (plan) => storeImage(plan.pieces(), hash));
    for (const command of commands) {
      console.error(`guest: ${command}`);
      const { fetches, wireBytes } = await traceGuest(image, command, hash);
      const suffix = command === 'lsr' ? '_10k_inodes' : '';
      fields[`${command}_wire_mib${suffix}`] = wireBytes / MIB;
      fields[`${command}_fetches${suffix}`] = fetches;
    }
  }
  return fields;
}

function treeOf(corpus: Corpus, name: string): CorpusTree {
  const tree = corpus.trees.find((one) => one.name === name);
  if (tree === undefined) throw new Error(`the corpus has no tree ${name}`);
  return tree;
}
