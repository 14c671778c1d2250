import { createWriteStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { createMemoryRandomAccess, type HashProvider } from '@decant/cas';
import { loadNodeHashProvider } from '@decant/cas/node';
import { GIB, MIB } from '@decant/core';
import { entryBlocks, header } from '@decant/oci/testing';
import { createScratch, diffTrees, flattenTar, planErofs, readErofs, type DirectoryNode } from '@decant/rootfs';

import { ROOT } from '../scripts/workspace.ts';
import { exponentOf, type Series } from './cas-linear.ts';
import { cpuSecondsOf, median, usageOf } from './measure.ts';
import type { BenchResult } from './report.ts';

const ROUNDS = 3;
/** Entries of one directory. */
const SIBLINGS = 500;

/** Archive of so many small files, a directory for every 500 of them. */
function* manyEntries(count: number): Generator<Uint8Array> {
  for (let i = 0; i < count; i++) {
    const directory = `usr/share/directory-${Math.floor(i / SIBLINGS)}`;
    if (i % SIBLINGS === 0) yield* entryBlocks({ path: `${directory}/`, mode: 0o755 });
    yield* entryBlocks({ path: `${directory}/file-${i}`, data: `the content of file ${i}`, mtime: 1_700_000_000 });
  }
  yield new Uint8Array(1024);
}

/** Archive of files of 8 MiB that differ from page to page. */
function* manyBytes(sizeBytes: number): Generator<Uint8Array> {
  const fileBytes = 8 * MIB;
  for (let at = 0; at < sizeBytes; at += fileBytes) {
    yield header({ path: `file-${at}` }, fileBytes);
    for (let i = 0; i < fileBytes; i += MIB) yield noise(at + i);
  }
  yield new Uint8Array(1024);
}

function noise(seed: number): Uint8Array {
  const words = new Uint32Array(MIB / 4);
  let state = seed + 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    words[i] = state ^ (state >>> 15);
  }
  return new Uint8Array(words.buffer);
}

async function* asStream(parts: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* parts;
}

/** CPU seconds of each step for one archive: medians of three rounds. */
async function measureArchive(
  archive: () => Iterable<Uint8Array>,
  hash: HashProvider,
  { readBack }: { readonly readBack: boolean },
): Promise<Readonly<Record<string, number>>> {
  const samples: Record<string, number[]> = {};
  const timed = async (name: string, action: () => Promise<void>) => {
    (samples[name] ??= []).push(await cpuSecondsOf(action));
  };
  const folder = await mkdtemp(join(tmpdir(), 'decant-linear-'));
  try {
    const parts = [...archive()];
    for (let round = 0; round < ROUNDS; round++) {
      await using scratch = await createScratch(folder);
      let root: DirectoryNode | undefined;
      await timed('flatten', async () => {
        ({ root } = await flattenTar(asStream(parts), { scratch }));
      });
      const pieces: Uint8Array[] = [];
      await timed('write', async () => {
        for await (const piece of (await planErofs(root!, { hash })).pieces()) {
          if (readBack && piece.type === 'data') pieces.push(piece.bytes.slice());
          if (readBack && piece.type === 'zeros') pieces.push(new Uint8Array(piece.lengthBytes));
        }
      });
      if (!readBack) continue;
      const source = createMemoryRandomAccess(Buffer.concat(pieces));
      await timed('read', async () => void (await readErofs(source)));
      const [before, after] = [await readErofs(source), await readErofs(source)];
      await timed('diff', async () => {
        const changes = diffTrees(before.root, after.root, { sameContent: () => Promise.resolve(true) });
        for await (const { path } of changes) throw new Error(`${path} differs from itself`);
      });
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return Object.fromEntries(Object.entries(samples).map(([name, all]) => [name, median(all)]));
}

/** Time against the number of entries: flattening, writing and reading the filesystem, comparing two. */
export async function measureEntries(counts: readonly number[]): Promise<Readonly<Record<string, Series>>> {
  return measureAll(counts, (count) => manyEntries(count), { readBack: true });
}

/** Time against bytes in files: flattening and writing. */
export async function measureBytes(sizes: readonly number[]): Promise<Readonly<Record<string, Series>>> {
  return measureAll(sizes, (size) => manyBytes(size), { readBack: false });
}

async function measureAll(
  sizes: readonly number[],
  archive: (size: number) => Iterable<Uint8Array>,
  options: { readonly readBack: boolean },
): Promise<Readonly<Record<string, Series>>> {
  const hash = await loadNodeHashProvider();
  // What is compiled late must not be charged to the smallest size.
  await measureArchive(() => archive(sizes[0]!), hash, options);
  const all: Record<string, [number, number][]> = {};
  for (const size of sizes) {
    const seconds = await measureArchive(() => archive(size), hash, options);
    for (const [name, value] of Object.entries(seconds)) (all[name] ??= []).push([size, value]);
  }
  return all;
}

/**
 * Peak memory of `decant image import tar:FILE --streaming`, for an archive with a file that is nearly all hole, zeros that
 * are stored, and bytes that do not compress; in units of 10^6 bytes.
 */
function importPeakMb(sizes: { readonly holeBytes: number; readonly zeroBytes: number; readonly noiseBytes: number }) {
  return importUsage((path) => writeLargeArchive(path, sizes));
}

/** What the whole command takes, from the archive to the admitted image, in a home of its own. */
async function importUsage(write: (path: string) => Promise<void>) {
  const folder = await mkdtemp(join(tmpdir(), 'decant-linear-'));
  try {
    const path = join(folder, 'root.tar');
    await write(path);
    const command = [process.execPath, '--conditions=@decant/source', join(ROOT, 'packages/cli/src/main.ts')];
    const { peakMb, cpuSeconds } = await usageOf(
      [...command, 'image', 'import', `tar:${path}`, '--streaming', '-n', 'large', '--json'],
      { DECANT_HOME: join(folder, 'home'), NODE_COMPILE_CACHE: join(ROOT, '.cache/bench/compile-cache') },
    );
    return { peakMb, cpuSeconds };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * CPU seconds of whole imports against entries and bytes, each without what the import of an empty archive takes: starting
 * is the same for all, and would hide how the rest grows.
 */
export async function measureImports(
  counts: readonly number[],
  sizes: readonly number[],
): Promise<{ readonly entries: Series; readonly bytes: Series }> {
  const cpuOf = async (archive: Iterable<Uint8Array>) => {
    const { cpuSeconds } = await importUsage(async (path) => {
      await pipeline(inBatches(archive), createWriteStream(path));
    });
    return cpuSeconds;
  };
  const none: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) none.push(await cpuOf(manyEntries(0)));
  // The first has filled the cache of compiled code.
  const base = median(none.slice(1));
  const entries: [number, number][] = [];
  for (const count of counts) entries.push([count, (await cpuOf(manyEntries(count))) - base]);
  const bytes: [number, number][] = [];
  for (const size of sizes) bytes.push([size, (await cpuOf(manyBytes(size))) - base]);
  return { entries, bytes };
}

/** Blocks of an archive in pieces of about a mebibyte. */
function* inBatches(blocks: Iterable<Uint8Array>): Generator<Uint8Array> {
  let batch: Uint8Array[] = [];
  let length = 0;
  for (const block of blocks) {
    batch.push(block);
    length += block.length;
    if (length < MIB) continue;
    yield Buffer.concat(batch);
    [batch, length] = [[], 0];
  }
  yield Buffer.concat(batch);
}

async function writeLargeArchive(
  path: string,
  {
    holeBytes,
    zeroBytes,
    noiseBytes,
  }: { readonly holeBytes: number; readonly zeroBytes: number; readonly noiseBytes: number },
): Promise<void> {
  await using file = await open(path, 'wx');
  let at = 0;
  const write = async (bytes: Uint8Array) => {
    await file.write(bytes, 0, bytes.length, at);
    at += bytes.length;
  };
  const map = `0,4096,${holeBytes - 4096},4096`;
  const sparse = [
    ['GNU.sparse.size', String(holeBytes)],
    ['GNU.sparse.map', map],
  ] as const;
  for (const block of entryBlocks({ path: 'sparse', data: noise(1).subarray(0, 8192), pax: sparse }))
    await write(block);
  await write(header({ path: 'zeros' }, zeroBytes));
  // Zeros that the archive stores; on this disk they are a hole.
  at += zeroBytes;
  for (const bytes of manyBytes(noiseBytes)) await write(bytes);
}

const MOST_EXPONENT = 1.15;

export async function benchRootfsLinear({ short }: { readonly short: boolean }): Promise<BenchResult> {
  const counts = short ? [1000, 4000, 16_000] : [1000, 3000, 10_000, 30_000, 100_000];
  const sizes = (short ? [16, 64, 128] : [32, 64, 128, 256, 512]).map((size) => size * MIB);
  const fields: Record<string, number> = {};
  const goals: Record<string, { most: number }> = {};
  const absolute: Record<string, number> = {};
  const report = (suffix: string, series: Readonly<Record<string, Series>>, unit: (size: number) => string) => {
    for (const [name, points] of Object.entries(series)) {
      fields[`${name}_${suffix}_exponent`] = exponentOf(points);
      goals[`${name}_${suffix}_exponent`] = { most: MOST_EXPONENT };
      for (const [size, seconds] of points) absolute[`${name}_${unit(size)}_cpu_seconds`] = seconds;
    }
  };
  report('entries', await measureEntries(counts), (count) => `${count}_entries`);
  report('bytes', await measureBytes(sizes), (size) => `${size / MIB}_mib`);
  const imports = await measureImports(
    short ? [4000, 16_000, 64_000] : [10_000, 100_000, 1_000_000],
    (short ? [16, 64, 256] : [64, 256, 1024]).map((size) => size * MIB),
  );
  report('entries', { import: imports.entries }, (count) => `${count}_entries`);
  report('bytes', { import: imports.bytes }, (size) => `${size / MIB}_mib`);
  const [one, ten] = [
    { holeBytes: 512 * MIB, zeroBytes: 256 * MIB, noiseBytes: 256 * MIB },
    { holeBytes: 7 * GIB, zeroBytes: 2 * GIB, noiseBytes: GIB },
  ];
  const large = await importPeakMb(short ? one : ten);
  fields['import_peak_mb'] = large.peakMb;
  goals['import_peak_mb'] = { most: 250 };
  absolute['import_cpu_seconds'] = large.cpuSeconds;
  return {
    name: 'rootfs-linear',
    short,
    input: {
      entries: `${counts[0]} to ${counts.at(-1)}`,
      sizes: `${sizes[0]! / MIB} to ${sizes.at(-1)! / MIB} MiB`,
      import: short ? '1 GiB: half a hole, a quarter zeros' : '10 GiB: 7 a hole, 2 zeros',
    },
    fields,
    goals,
    absolute,
  };
}
