import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import {
  createImageReader,
  createManifestBuilder,
  encodeLocator,
  openChunk,
  parseLocator,
  parseManifest,
  type HashProvider,
  type LocatorRecord,
  type Manifest,
} from '@decant/cas';
import { createZstdCodec, loadNodeHashProvider, makeFromFile, openPackDirectory } from '@decant/cas/node';
import { MIB, PAGE_BYTES, toHex, type ChunkId, type ChunkSource } from '@decant/core';

import { cpuSecondsOf } from './measure.ts';
import type { BenchResult } from './report.ts';

/** CPU seconds at each size, ascending. */
export type Series = readonly (readonly [size: number, cpuSeconds: number])[];

/** A time below this says more about the clock than about the work; the work is then repeated. Seconds. */
const LEAST_SECONDS = 0.02;
const FACTS = { format: 'raw', layout: 'foreign', architecture: null, configDigest: new Uint8Array(32) } as const;
const codec = createZstdCodec();

/** Time of one call: the least of five measurements, each of as many calls as make it long enough; others only add to it. */
async function secondsOf(action: () => unknown): Promise<number> {
  const samples: number[] = [];
  for (let calls = 1; samples.length < 5;) {
    const seconds = await cpuSecondsOf(async () => {
      for (let i = 0; i < calls; i++) await action();
    });
    if (seconds >= LEAST_SECONDS) samples.push(seconds / calls);
    else calls = Math.ceil(calls * Math.min(10, (1.5 * LEAST_SECONDS) / Math.max(seconds, 1e-6)));
  }
  return Math.min(...samples);
}

/** The slope of the line of least squares through the logarithms: 1 is linear, 2 quadratic. */
export function exponentOf(series: Series): number {
  const points = series.map(([size, seconds]) => [Math.log(size), Math.log(seconds)] as const);
  const mean = (axis: 0 | 1) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  let [up, down] = [0, 0];
  for (const [px, py] of points) {
    up += (px - x) * (py - y);
    down += (px - x) ** 2;
  }
  return up / down;
}

/** The series that grows fastest, and its exponent. */
export function steepest(all: Readonly<Record<string, Series>>): readonly [name: string, exponent: number] {
  const exponents = Object.entries(all).map(([name, series]) => [name, exponentOf(series)] as const);
  return exponents.reduce((most, one) => (one[1] > most[1] ? one : most));
}

/** Time against the number of chunks: building and parsing of manifest and locator, and looking all ids of one image up in another. */
export async function measureCounts(counts: readonly number[]): Promise<Readonly<Record<string, Series>>> {
  const hash = await loadNodeHashProvider();
  const all: Record<string, [number, number][]> = {};
  const record = (name: string, count: number, seconds: number) => (all[name] ??= []).push([count, seconds]);
  for (const count of counts) {
    const ids = Array.from({ length: count }, (_, i) => idOf(i, hash));
    const build = () => manifestOf(ids, hash);
    const manifest = build();
    // Every other chunk is another one.
    const other = manifestOf(
      ids.map((id, i) => (i % 2 === 0 ? id : idOf(i + 1e7, hash))),
      hash,
    );
    const locator = locatorOf(manifest);
    record('manifest_build', count, await secondsOf(build));
    record('manifest_parse', count, await secondsOf(() => parseManifest(manifest.bytes, hash)));
    record('locator_encode', count, await secondsOf(() => locatorOf(manifest)));
    record('locator_parse', count, await secondsOf(() => parseLocator(locator)));
    record('missing', count, await secondsOf(() => missingOf(other, manifest)));
    record('read', count, await secondsOf(() => readAll(manifest, hash)));
  }
  return all;
}

function idOf(i: number, hash: HashProvider): ChunkId {
  return toHex(hash.blake3(plainOf(i))) as ChunkId;
}

/** One page of zeros but for its number. */
function plainOf(i: number): Uint8Array {
  const plain = new Uint8Array(PAGE_BYTES);
  new DataView(plain.buffer).setUint32(0, i + 1);
  return plain;
}

function manifestOf(ids: readonly ChunkId[], hash: HashProvider): Manifest {
  const builder = createManifestBuilder(FACTS, hash);
  for (const id of ids) builder.add({ type: 'chunk', id, lengthBytes: PAGE_BYTES });
  return builder.finish();
}

function locatorOf(manifest: Manifest): Uint8Array {
  const record = (i: number): LocatorRecord => ({
    pack: i >> 13,
    offset: 48 + (i & 8191) * PAGE_BYTES,
    storedBytes: PAGE_BYTES,
    plainBytes: PAGE_BYTES,
    encoding: 'raw',
  });
  const packs = Array.from({ length: (manifest.entryCount >> 13) + 1 }, (_, i) => ({ key: `ns/bench/packs/${i}` }));
  const records = Array.from({ length: manifest.entryCount }, (_, i) => record(i));
  return encodeLocator({ imageId: manifest.id, packs, records });
}

function missingOf(wanted: Manifest, known: Manifest): number {
  let missing = 0;
  for (const id of wanted.chunkIds()) if (known.indexOf(id) === undefined) missing++;
  return missing;
}

/** Reads the image in steps of 4 MiB from a source in memory, every chunk verified. */
async function readAll(manifest: Manifest, hash: HashProvider): Promise<void> {
  const source: ChunkSource = {
    has: async (ids) => new Set(ids),
    async *get(ids) {
      for (const id of ids) {
        const stored = plainOf(manifest.indexOf(id)!);
        yield { id, encoding: 'raw', plainBytes: PAGE_BYTES, stored };
      }
    },
  };
  const reader = createImageReader(manifest, source, { hash, codec });
  for (let at = 0; at < reader.sizeBytes; at += 4 * MIB)
    await reader.read(at, Math.min(4 * MIB, reader.sizeBytes - at));
}

/** Time against the size of an image file of noise: making it, making it again, and verifying every chunk of the store. */
export async function measureSizes(sizes: readonly number[]): Promise<Readonly<Record<string, Series>>> {
  const hash = await loadNodeHashProvider();
  const all: Record<string, [number, number][]> = {};
  const record = (name: string, size: number, seconds: number) => (all[name] ??= []).push([size, seconds]);
  const folder = await mkdtemp(join(tmpdir(), 'decant-linear-'));
  try {
    for (const size of sizes) {
      const file = join(folder, 'image');
      await writeNoise(file, size);
      const make = (store: string) =>
        makeFromFile({ file, store: join(folder, store), layout: 'foreign', codec: 'raw', workers: 2, fsync: false });
      const cold: number[] = [];
      for (let round = 0; round < 3; round++) {
        await rm(join(folder, 'store'), { recursive: true, force: true });
        cold.push(await cpuSecondsOf(() => make('store')));
      }
      record('make', size, Math.min(...cold));
      const { manifest } = await make('store');
      const warm: number[] = [];
      const verified: number[] = [];
      for (let round = 0; round < 3; round++) {
        warm.push(await cpuSecondsOf(() => make('store')));
        verified.push(await cpuSecondsOf(() => verifyAll(manifest, join(folder, 'store'), hash)));
      }
      record('make_again', size, Math.min(...warm));
      record('verify', size, Math.min(...verified));
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return all;
}

async function writeNoise(path: string, sizeBytes: number): Promise<void> {
  await using file = await open(path, 'w');
  const words = new Uint32Array(MIB / 4);
  let state = 1;
  for (let at = 0; at < sizeBytes; at += MIB) {
    for (let i = 0; i < words.length; i++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
      words[i] = state ^ (state >>> 15);
    }
    // The generator's period is shorter than a large image.
    words[0] = at / MIB;
    for (let i = 0; i < words.length; i += PAGE_BYTES / 4) words[i] = words[i]! ^ (at / MIB);
    await file.write(words);
  }
}

async function verifyAll(manifest: Manifest, store: string, hash: HashProvider): Promise<void> {
  const source = await openPackDirectory(store, { hash });
  const expected = new Map([...manifest.chunks()].map(({ id, plainBytes }) => [id, plainBytes]));
  for await (const frame of source.get([...expected.keys()])) {
    openChunk(frame, { id: frame.id, plainBytes: expected.get(frame.id)! }, { hash, codec });
  }
}

/** Sizes and counts over which the exponent is fitted: below, constant costs hide what grows. */
const FIT_FROM_BYTES = 128 * MIB;
const FIT_FROM_CHUNKS = 1000;
/** 1 is linear and 2 a square. What no longer fits into the processor's caches adds up to 0.15 between 1,000 and 100,000 chunks. */
const MOST = 1.2;

export async function benchCasLinear({ short }: { readonly short: boolean }): Promise<BenchResult> {
  const sizes = (short ? [1, 16, 128, 256] : [1, 4, 16, 64, 128, 256, 512, 1024]).map((size) => size * MIB);
  const counts = short ? [1, 100, 1000, 10_000] : [1, 10, 100, 1000, 3000, 10_000, 30_000, 100_000];
  const fields: Record<string, number> = {};
  const goals: Record<string, { most: number }> = {};
  const absolute: Record<string, number> = {};
  const report = (name: string, series: Series, from: number, unit: (size: number) => string) => {
    fields[`${name}_exponent`] = exponentOf(series.filter(([size]) => size >= from));
    goals[`${name}_exponent`] = { most: MOST };
    for (const [size, seconds] of series) absolute[`${name}_${unit(size)}_cpu_seconds`] = seconds;
  };
  for (const [name, series] of Object.entries(await measureSizes(sizes))) {
    report(name, series, FIT_FROM_BYTES, (size) => `${size / MIB}_mib`);
  }
  for (const [name, series] of Object.entries(await measureCounts(counts))) {
    report(name, series, FIT_FROM_CHUNKS, (count) => `${count}_chunks`);
  }
  return {
    name: 'cas-linear',
    short,
    input: { sizes: `${sizes[0]! / MIB} to ${sizes.at(-1)! / MIB} MiB`, chunks: `${counts[0]} to ${counts.at(-1)}` },
    fields,
    goals,
    absolute,
  };
}
