import { PAGE_BYTES, type CallOptions, type ChunkId } from '@decant/core';

import type { ExpectedChunk } from '../chunk/open-chunk.ts';
import type { Manifest } from '../manifest/manifest.ts';
import type { ChunkLoader } from '../store/chunk-loader.ts';
import { requireRange } from './random-access.ts';

/** One stretch of the answer that comes from a chunk. */
interface Part {
  readonly target: Uint8Array;
  /** First byte within the chunk. */
  readonly from: number;
}

/**
 * Bytes of an image, from chunks that were verified; holes are zeros. The same chunk in several places is loaded once.
 * @throws RangeError outside the image, and what the loader throws.
 */
export async function readImage(
  manifest: Manifest,
  loader: ChunkLoader,
  offset: number,
  lengthBytes: number,
  options: CallOptions = {},
): Promise<Uint8Array> {
  requireRange(offset, lengthBytes, manifest.virtualBytes);
  const answer = new Uint8Array(lengthBytes);
  const wanted = new Map<ChunkId, ExpectedChunk & { readonly parts: Part[] }>();
  for (const { id, plainBytes, part } of partsOf(manifest, offset, answer)) {
    const known = wanted.get(id);
    if (known === undefined) wanted.set(id, { id, plainBytes, parts: [part] });
    else known.parts.push(part);
  }
  const use = ({ id }: ExpectedChunk, plain: Uint8Array) => {
    for (const { target, from } of wanted.get(id)!.parts) target.set(plain.subarray(from, from + target.length));
  };
  await loader.load(wanted.values(), use, options);
  return answer;
}

function* partsOf(
  manifest: Manifest,
  offset: number,
  answer: Uint8Array,
): Generator<ExpectedChunk & { readonly part: Part }> {
  const end = offset + answer.length;
  if (offset === end) return;
  for (let i = manifest.find(Math.floor(offset / PAGE_BYTES)); i < manifest.entryCount; i++) {
    const { id, firstPage, pages } = manifest.entry(i);
    const start = firstPage * PAGE_BYTES;
    if (start >= end) return;
    if (id === null) continue;
    const plainBytes = pages * PAGE_BYTES;
    const first = Math.max(start, offset);
    const last = Math.min(start + plainBytes, end);
    yield { id, plainBytes, part: { target: answer.subarray(first - offset, last - offset), from: first - start } };
  }
}
