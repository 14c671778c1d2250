import { DecantError, formatBytes, isDecantError, MIB, type ChunkId } from '@decant/core';

import type { Manifest } from '../../manifest/manifest.ts';
import { openChunk } from '../../chunk/open-chunk.ts';
import { loadNodeHashProvider } from '../node-hash-provider.ts';
import { createZstdCodec } from '../zstd-codec.ts';
import { openStore, print, readManifest } from './arguments.ts';
import type { Invocation } from './main.ts';

/** Plain bytes of the chunks asked for at a time. */
const BATCH_BYTES = 8 * MIB;
/** Faults that are named one by one. */
const NAMED = 10;

/** `verify MANIFEST --store DIR`: goes on after a fault, so that all of them are counted. */
export async function verify(invocation: Invocation): Promise<void> {
  const { positionals, signal } = invocation;
  const hash = await loadNodeHashProvider();
  const codec = createZstdCodec();
  const manifest = await readManifest(positionals[0]!, hash);
  const store = await openStore(invocation, hash);
  let chunks = 0;
  let faults = 0;
  const fault = (text: string) => {
    if (faults++ < NAMED) process.stderr.write(`${text}\n`);
  };
  for (const batch of batches(manifest)) {
    signal.throwIfAborted();
    const there = await store.has([...batch.keys()]);
    for (const id of batch.keys()) if (!there.has(id)) fault(`chunk ${id} is missing`);
    for await (const frame of store.get([...there], { signal })) {
      try {
        openChunk(frame, { id: frame.id, plainBytes: batch.get(frame.id)! }, { hash, codec });
        chunks++;
      } catch (error) {
        if (!isDecantError(error)) throw error;
        fault(error.message);
      }
    }
  }
  if (faults > 0) {
    throw new DecantError('CAS_CHUNK_MISMATCH', `${faults} of ${manifest.chunkCount} chunks are damaged or missing.`, {
      hint: 'Make the image again into another store.',
      details: { faults },
    });
  }
  const { id, chunkBytes } = manifest;
  await print(
    invocation,
    { id, chunks, bytes: chunkBytes },
    `${id}\n${chunks} chunks, ${formatBytes(chunkBytes)}: all in order`,
  );
}

function* batches(manifest: Manifest): Generator<ReadonlyMap<ChunkId, number>> {
  let batch = new Map<ChunkId, number>();
  let bytes = 0;
  for (const { id, plainBytes } of manifest.chunks()) {
    batch.set(id, plainBytes);
    bytes += plainBytes;
    if (bytes < BATCH_BYTES) continue;
    yield batch;
    batch = new Map();
    bytes = 0;
  }
  yield batch;
}
