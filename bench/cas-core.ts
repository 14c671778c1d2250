import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chunkImage, type HashProvider } from '@decant/cas';
import { loadNodeHashProvider, scanFile } from '@decant/cas/node';
import { MIB } from '@decant/core';
import { createBLAKE3 } from 'hash-wasm';

import { fastCdcEnd } from './fast-cdc.ts';
import { cpuSecondsOf, interleaved, median, wallSecondsOf } from './measure.ts';

export type CoreFields = Record<
  | 'blake3_vs_hashwasm_64k'
  | 'blake3_vs_hashwasm_4k'
  | 'blake3_vs_sha256_hw'
  | 'scanhash_vs_hash'
  | 'scanhash_vs_jsfastcdc_hashwasm'
  | 'workers2_vs_1_hash',
  number
>;

/** Rates of hashing and cutting, in memory and by the processor time of this process; workers by wall time. */
export async function measureCore(
  file: string,
  rounds: number,
): Promise<{ fields: CoreFields; gbPerSecond: Record<string, number> }> {
  const hash = await loadNodeHashProvider();
  const wasm = await createBLAKE3();
  const data = firstData(file, 48 * MIB);
  const pieces = (size: number, digest: (piece: Uint8Array) => unknown) => () =>
    cpuSecondsOf(() => {
      for (let at = 0; at < data.length; at += size) digest(data.subarray(at, at + size));
    });
  const chunks = await chunkSizes(data, hash);
  const samples = await interleaved(rounds + 1, {
    blake3_64k: pieces(65_536, (piece) => hash.blake3(piece)),
    hashwasm_64k: pieces(65_536, (piece) => wasm.init().update(piece).digest('binary')),
    sha256_64k: pieces(65_536, (piece) => createHash('sha256').update(piece).digest()),
    blake3_4k: pieces(4096, (piece) => hash.blake3(piece)),
    hashwasm_4k: pieces(4096, (piece) => wasm.init().update(piece).digest('binary')),
    // The same chunks, given whole: what is left is the work of cutting.
    hash: () =>
      cpuSecondsOf(() => {
        let at = 0;
        for (const size of chunks) hash.blake3(data.subarray(at, (at += size)));
      }),
    scanhash: () =>
      cpuSecondsOf(async () => {
        for await (const _ of chunkImage([{ type: 'data', bytes: data }], { layout: 'foreign', hash }));
      }),
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
  // The first round warms the compilers up.
  type Name = Parameters<typeof samples.of>[0];
  const seconds = (name: Name) => median(samples.of(name).slice(1));
  const rate = (a: Name, b: Name) =>
    median(
      samples
        .of(a)
        .map((value, i) => samples.of(b)[i]! / value)
        .slice(1),
    );
  const inMemory: Name[] = ['blake3_64k', 'hashwasm_64k', 'sha256_64k', 'blake3_4k', 'hashwasm_4k', 'hash', 'scanhash'];
  return {
    fields: {
      blake3_vs_hashwasm_64k: rate('blake3_64k', 'hashwasm_64k'),
      blake3_vs_hashwasm_4k: rate('blake3_4k', 'hashwasm_4k'),
      blake3_vs_sha256_hw: rate('blake3_64k', 'sha256_64k'),
      scanhash_vs_hash: rate('scanhash', 'hash'),
      scanhash_vs_jsfastcdc_hashwasm: rate('scanhash', 'jsfastcdc_hashwasm'),
      workers2_vs_1_hash: rate('workers2', 'workers1'),
    },
    gbPerSecond: Object.fromEntries(
      [...inMemory, 'jsfastcdc_hashwasm' as const].map((name) => [name, data.length / 1e9 / seconds(name)]),
    ),
  };
}

/** Processor seconds of the parts of a raw make alone: reading, cutting and hashing, writing what is not zeros. */
export async function sumOfParts(file: string, sizeBytes: number, contentBytes: number): Promise<number> {
  const hash = await loadNodeHashProvider();
  const data = firstData(file, 48 * MIB);
  const folder = mkdtempSync(join(tmpdir(), 'decant-bench-'));
  try {
    const buffer = new Uint8Array(MIB);
    const reading = await cpuSecondsOf(() => {
      const fd = openSync(file, 'r');
      while (readSync(fd, buffer) > 0);
      closeSync(fd);
    });
    const cutting = async () =>
      cpuSecondsOf(async () => {
        for await (const _ of chunkImage([{ type: 'data', bytes: data }], { layout: 'foreign', hash }));
      });
    await cutting();
    const scanning = (await cutting()) * (contentBytes / data.length);
    const zeros = new Uint8Array(48 * MIB);
    const skipping = await cpuSecondsOf(async () => {
      for await (const _ of chunkImage([{ type: 'data', bytes: zeros }], { layout: 'foreign', hash }));
    });
    const writing = await cpuSecondsOf(() => {
      const fd = openSync(join(folder, 'out'), 'w');
      for (let done = 0; done < contentBytes; done += MIB)
        writeSync(fd, data, done % (32 * MIB), Math.min(MIB, contentBytes - done));
      closeSync(fd);
    });
    return reading + scanning + (skipping * (sizeBytes - contentBytes)) / zeros.length + writing;
  } finally {
    rmSync(folder, { recursive: true });
  }
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
