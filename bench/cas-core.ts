import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writevSync } from 'node:fs';
import { join } from 'node:path';

import { chunkImage, openImageCutter, type HashProvider } from '@decant/cas';
import { loadNodeHashProvider, scanFile } from '@decant/cas/node';
import { KIB, MIB } from '@decant/core';
import { createBLAKE3 } from 'hash-wasm';

import { fastCdcEnd } from './fast-cdc.ts';
import { cpuSecondsOf, interleaved, wallSecondsOf, warmMemory, type Rounds } from './measure.ts';

export type CoreFields = Record<
  | 'blake3_vs_hashwasm_64k'
  | 'blake3_vs_hashwasm_4k'
  | 'blake3_vs_sha256_hw'
  | 'scanhash_vs_hash'
  | 'scanhash_vs_jsfastcdc_hashwasm'
  | 'workers2_vs_1_hash',
  number
>;

/**
 * Rates of hashing and cutting, in memory and by the processor time of this process; workers by wall time. Against
 * hash-wasm, both are given bytes in memory that is not theirs and copy them. Against SHA-256, which node:crypto computes
 * where the bytes lie, the core hashes what lies in its own memory, where a make reads files to; `blake3_64k` says
 * what it does with the copy.
 */
export async function measureCore(
  file: string,
  rounds: Rounds,
): Promise<{ fields: CoreFields; gbPerSecond: Record<string, number> }> {
  const hash = await loadNodeHashProvider();
  const wasm = await createBLAKE3();
  const data = firstData(file, 48 * MIB);
  const pieces = (size: number, digest: (piece: Uint8Array) => unknown) => () =>
    cpuSecondsOf(() => {
      for (let at = 0; at < data.length; at += size) digest(data.subarray(at, at + size));
    });
  const chunks = await chunkSizes(data, hash);
  using hasher = await hash.createPageHasher();
  const { buffer } = hasher;
  buffer.set(data.subarray(0, buffer.length));
  /** As many bytes as `data` has, 64 KiB at a time, around the hasher's buffer. */
  const inBuffer = (digest: (at: number) => unknown) => () =>
    cpuSecondsOf(() => {
      for (let at = 0; at < data.length; at += 64 * KIB) digest(at % buffer.length);
    });
  const samples = await interleaved(rounds, {
    core_64k: inBuffer((at) => {
      hasher.plainPages(at, 16, 0);
      return hasher.endChunk(at, 16);
    }),
    sha256_64k: inBuffer((at) =>
      createHash('sha256')
        .update(buffer.subarray(at, at + 65_536))
        .digest(),
    ),
    blake3_64k: pieces(65_536, (piece) => hash.blake3(piece)),
    hashwasm_64k: pieces(65_536, (piece) => wasm.init().update(piece).digest('binary')),
    blake3_4k: pieces(4096, (piece) => hash.blake3(piece)),
    hashwasm_4k: pieces(4096, (piece) => wasm.init().update(piece).digest('binary')),
    // The same chunks, given whole: what is left is the work of cutting.
    hash: () =>
      cpuSecondsOf(() => {
        let at = 0;
        for (const size of chunks) hash.blake3(data.subarray(at, (at += size)));
      }),
    scanhash: () => cpuSecondsOf(() => cutAll(data, hash)),
    jsfastcdc_hashwasm: () =>
      cpuSecondsOf(() => {
        for (let at = 0; at < data.length;) {
          const end = fastCdcEnd(data, at);
          wasm.init().update(data.subarray(at, end)).digest('binary');
          at = end;
        }
      }),
    workers1: () => wallSecondsOf(() => drain(scanFile(file, { workers: 1 }))),
    workers2: () => wallSecondsOf(() => drain(scanFile(file, { workers: 2 }))),
  });
  // A rate is the inverse of a time.
  const rate = (a: Parameters<typeof samples.of>[0], b: Parameters<typeof samples.of>[0]) => samples.ratio(b, a);
  const inMemory = [
    ...['core_64k', 'blake3_64k', 'hashwasm_64k', 'sha256_64k', 'blake3_4k', 'hashwasm_4k'],
    ...['hash', 'scanhash', 'jsfastcdc_hashwasm'],
  ] as Parameters<typeof samples.of>[0][];
  return {
    fields: {
      blake3_vs_hashwasm_64k: rate('blake3_64k', 'hashwasm_64k'),
      blake3_vs_hashwasm_4k: rate('blake3_4k', 'hashwasm_4k'),
      blake3_vs_sha256_hw: rate('core_64k', 'sha256_64k'),
      scanhash_vs_hash: rate('scanhash', 'hash'),
      scanhash_vs_jsfastcdc_hashwasm: rate('scanhash', 'jsfastcdc_hashwasm'),
      workers2_vs_1_hash: rate('workers2', 'workers1'),
    },
    gbPerSecond: Object.fromEntries(inMemory.map((name) => [name, data.length / 1e9 / samples.median(name)])),
  };
}

/**
 * Processor seconds of the parts of a raw make alone: reading, cutting and hashing what is not zeros, passing over what is,
 * writing to `folder`. The median of as many runs as the make had, in the same state of the memory.
 */
export async function sumOfParts(
  { file, folder, sizeBytes, contentBytes }: { file: string; folder: string; sizeBytes: number; contentBytes: number },
  rounds: Rounds,
): Promise<number> {
  const hash = await loadNodeHashProvider();
  const data = firstData(file, 48 * MIB);
  const zeros = new Uint8Array(data.length);
  const work = mkdtempSync(join(folder, 'parts-'));
  try {
    const samples = await interleaved(rounds, {
      reading: () => {
        warmMemory(file, work, contentBytes);
        return cpuSecondsOf(() => readAll(file));
      },
      cutting: () => cpuSecondsOf(() => cutAll(data, hash)),
      passing: () => cpuSecondsOf(() => cutAll(zeros, hash)),
      writing: () => cpuSecondsOf(() => writeAll(join(work, 'out'), data, contentBytes)),
    });
    const cutting = (samples.median('cutting') * contentBytes) / data.length;
    const passing = (samples.median('passing') * (sizeBytes - contentBytes)) / zeros.length;
    return samples.median('reading') + cutting + passing + samples.median('writing');
  } finally {
    rmSync(work, { recursive: true });
  }
}

function readAll(file: string): void {
  const buffer = new Uint8Array(MIB);
  const fd = openSync(file, 'r');
  while (readSync(fd, buffer) > 0);
  closeSync(fd);
}

/** Writes about `length` bytes, in pieces of 1 MiB, and removes them. */
function writeAll(path: string, data: Uint8Array, length: number): void {
  const fd = openSync(path, 'w');
  const room = data.length - (data.length % MIB);
  for (let done = 0; done < length; done += MIB) {
    const at = done % room;
    writevSync(fd, [data.subarray(at, at + Math.min(MIB, length - done))]);
  }
  closeSync(fd);
  rmSync(path);
}

/** Cuts and hashes by the rules for foreign images, copying portions into the cutter as a read would. */
async function cutAll(data: Uint8Array, hash: HashProvider): Promise<void> {
  using cutter = await openImageCutter({ layout: 'foreign', hash });
  for (let at = 0; at < data.length;) {
    const room = cutter.room();
    const count = Math.min(room.length, 128 * KIB, data.length - at);
    room.set(data.subarray(at, at + count));
    cutter.filled(count);
    at += count;
    while (cutter.next() !== undefined);
  }
  cutter.end();
  while (cutter.next() !== undefined);
}

/** Bytes of the file that are not zero pages, from its start. */
function firstData(file: string, length: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(length);
  const page = new Uint8Array(4096);
  const fd = openSync(file, 'r');
  let done = 0;
  while (done < length && readSync(fd, page) === page.length) {
    if (page.every((byte) => byte === 0)) continue;
    data.set(page, done);
    done += page.length;
  }
  closeSync(fd);
  return data.subarray(0, done);
}

async function chunkSizes(data: Uint8Array, hash: HashProvider): Promise<number[]> {
  const sizes: number[] = [];
  for await (const chunk of chunkImage([{ type: 'data', bytes: data }], { layout: 'foreign', hash })) {
    sizes.push(chunk.type === 'chunk' ? chunk.bytes.length : chunk.lengthBytes);
  }
  return sizes;
}

async function drain(stretches: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stretches);
}
