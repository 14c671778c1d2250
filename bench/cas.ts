import { mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { loadHashProvider, parseManifest } from '@decant/cas';
import { findProgram, run } from '@decant/core/node';

import { ROOT } from '../scripts/workspace.ts';
import { measureCore, sumOfParts } from './cas-core.ts';
import { rootfsInput, shortInput } from './input.ts';
import { interleaved, median, usageOf, warmMemory, type Rounds, type Usage } from './measure.ts';
import type { BenchResult, Goal } from './report.ts';

/** Bounds of design goals; fields without one are only reported. `most` is a ceiling. */
const GOALS: Readonly<Record<string, Goal>> = {
  blake3_vs_hashwasm_64k: { least: 1.85 },
  blake3_vs_sha256_hw: { least: 0.9 },
  scanhash_vs_hash: { least: 0.92 },
  workers2_vs_1_make: { least: 1.6 },
  casync_cpu_vs_make_raw: { least: 6 },
  casync_cpu_vs_make_zstd: { least: 2.2 },
  zstd_bytes_vs_casync: { most: 1.07 },
  casync_cpu_vs_warm_make: { least: 4 },
  desync_wall_vs_make_2workers: { least: 8 },
  peak_rss_make_raw_mb: { most: 160 },
  peak_rss_make_zstd_mb: { most: 250 },
};

/** Another round of all programs begins only within this time. */
const PROGRAMS_MS = 6 * 60_000;

export interface CasOptions {
  /** A small input and one round: shows that everything works; its numbers are held to nothing. */
  readonly short: boolean;
}

/** Hashing, cutting and storing against hash-wasm, node:crypto, casync, desync and restic. */
export async function benchCas({ short }: CasOptions): Promise<BenchResult> {
  const folder = await mkdtemp(join(tmpdir(), 'decant-bench-cas-'));
  try {
    // The program is measured as people get it: built.
    for (const name of ['core', 'cas']) {
      await run('pnpm', ['run', 'build'], { cwd: join(ROOT, 'packages', name), timeoutMs: 120_000 });
    }
    const input = short ? await shortInput(folder) : await rootfsInput();
    const once = { least: 1, most: 1 };
    const core = await measureCore(input.first, short ? once : { least: 9, most: 9, warmUp: 1 });
    const programs = await measurePrograms(input, folder, short ? once : { least: 3, most: 7, untilMs: PROGRAMS_MS });
    const { contentBytes, makeRawCpu, fields } = programs;
    const { size: sizeBytes } = await stat(input.first);
    const parts = await sumOfParts(
      { file: input.first, folder, sizeBytes, contentBytes },
      short ? once : { least: 5, most: 5 },
    );
    return {
      name: 'cas',
      short,
      input: { description: input.description, sizeBytes, contentBytes },
      fields: { ...core.fields, ...fields, make_vs_sum_of_parts: parts / makeRawCpu },
      goals: GOALS,
      absolute: { ...prefixed('gb_per_cpu_second_', core.gbPerSecond), ...programs.absolute },
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measurePrograms(input: { first: string; second: string }, folder: string, rounds: Rounds) {
  const dataBytes = (await stat(input.first)).blocks * 512;
  const desync = await findProgram('desync');
  const cas = [process.execPath, join(ROOT, 'packages/cas/bin/decant-cas.cjs')];
  const at = (name: string) => join(folder, name);
  const usages = new Map<string, Usage[]>();
  const record = async (name: string, command: readonly string[], env?: Record<string, string>) => {
    warmMemory(name.endsWith('_warm') ? input.second : input.first, folder, dataBytes);
    const usage = await usageOf(command, env);
    usages.set(name, [...(usages.get(name) ?? []), usage]);
    return usage.cpuSeconds;
  };
  const make = (file: string, store: string, workers: number, level: string) => [
    ...[...cas, 'make', file, '--store', at(store), '--workers', String(workers), '--level', level, '--no-fsync'],
    ...['-o', at('manifest'), '--json'],
  ];
  const fresh = async (name: string) => {
    await rm(at(name), { recursive: true, force: true });
    return name;
  };
  const restic = { RESTIC_PASSWORD: 'bench', RESTIC_CACHE_DIR: at('restic-cache') };
  /** Bytes stored for the first image alone, and its bytes of data. */
  const sizes = { zstd: Number.NaN, casync: Number.NaN, content: Number.NaN };
  const samples = await interleaved(rounds, {
    make_raw_1: async () => record('make_raw_1', make(input.first, await fresh('raw'), 1, 'raw')),
    make_raw_2: async () => record('make_raw_2', make(input.first, await fresh('raw'), 2, 'raw')),
    make_raw_warm: () => record('make_raw_warm', make(input.second, 'raw', 1, 'raw')),
    make_zstd_1: async () => record('make_zstd_1', make(input.first, await fresh('zstd'), 1, '1')),
    make_zstd_2: async () => {
      const seconds = await record('make_zstd_2', make(input.first, await fresh('zstd'), 2, '1'));
      sizes.zstd = await bytesBelow(join(at('zstd'), 'packs'));
      sizes.content = parseManifest(await readFile(at('manifest')), await loadHashProvider()).contentBytes;
      return seconds;
    },
    casync: async () => {
      const seconds = await record('casync', [
        'casync',
        'make',
        `--store=${at(await fresh('first.castr'))}`,
        at('first.caibx'),
        input.first,
      ]);
      sizes.casync = await bytesBelow(at('first.castr'));
      return seconds;
    },
    casync_warm: () =>
      record('casync_warm', ['casync', 'make', `--store=${at('first.castr')}`, at('b.caibx'), input.second]),
    restic: async () => {
      const repository = at(await fresh('restic'));
      await run('restic', ['init', '-q', '-r', repository], { env: { ...process.env, ...restic }, timeoutMs: 60_000 });
      const args = ['backup', '-q', '--compression', 'off', '-r', repository, input.first];
      return record('restic', ['restic', ...args], restic);
    },
    ...(desync === undefined
      ? {}
      : {
          desync: async () => {
            await mkdir(at(await fresh('desync')));
            const args = ['make', '-n', '2', '-s', at('desync'), at('d.caibx'), input.first];
            return record('desync', [desync, ...args]);
          },
        }),
  });
  const medianOf = (name: string, value: (usage: Usage) => number) => median((usages.get(name) ?? []).map(value));
  const wallRatio = (a: string, b: string) =>
    median((usages.get(a) ?? []).map(({ wallSeconds }, i) => wallSeconds / usages.get(b)![i]!.wallSeconds));
  const wall = (name: string) => medianOf(name, (usage) => usage.wallSeconds);
  const peak = (name: string) => Math.max(...(usages.get(name) ?? []).map((usage) => usage.peakMb));

  return {
    contentBytes: sizes.content,
    makeRawCpu: samples.median('make_raw_1'),
    fields: {
      workers2_vs_1_make: wallRatio('make_raw_1', 'make_raw_2'),
      casync_cpu_vs_make_raw: samples.ratio('casync', 'make_raw_1'),
      casync_cpu_vs_make_zstd: samples.ratio('casync', 'make_zstd_1'),
      zstd_bytes_vs_casync: sizes.zstd / sizes.casync,
      casync_cpu_vs_warm_make: samples.ratio('casync_warm', 'make_raw_warm'),
      desync_wall_vs_make_2workers: desync === undefined ? null : wallRatio('desync', 'make_raw_2'),
      restic_cpu_vs_make_raw: samples.ratio('restic', 'make_raw_1'),
      peak_rss_make_raw_mb: peak('make_raw_2'),
      peak_rss_make_zstd_mb: peak('make_zstd_2'),
    },
    absolute: Object.fromEntries(
      [...usages].flatMap(([name, all]) => [
        [`cpu_seconds_${name}`, medianOf(name, (usage) => usage.cpuSeconds)],
        [`wall_seconds_${name}`, wall(name)],
        [`runs_${name}`, all.length],
      ]),
    ),
  };
}

async function bytesBelow(folder: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).size;
  }
  return bytes;
}

function prefixed(prefix: string, values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [prefix + name, value]));
}
