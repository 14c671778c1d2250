import { openSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';

import { PAGE_BYTES } from '@decant/core';

import { GrowingBytes, viewOf } from '../bytes/bytes-reader.ts';
import { HOLE_FLAG, MANIFEST_ENTRY_BYTES } from '../manifest/manifest-layout.ts';
import { loadNodeHashProvider } from './node-hash-provider.ts';
import { PackWriter } from './pack-writer.ts';
import { SharedIdSet } from './shared-id-set.ts';
import {
  sendableError,
  type FromStripeWorker,
  type StripeResult,
  type StripeStoring,
  type StripeWorkerData,
  type ToStripeWorker,
} from './stripe-messages.ts';
import { StripeScanner } from './stripe-scan.ts';
import { createZstdCodec } from './zstd-codec.ts';

/*
 * One worker thread: it scans the stripes it is told to, reading the file into memory of its own, and writes chunks
 * that are new into packs of its own. Only ids and lengths leave the thread. Descriptors are closed when it ends.
 */

async function main(port: NonNullable<typeof parentPort>, data: StripeWorkerData): Promise<void> {
  const hash = await loadNodeHashProvider();
  const scanner = await StripeScanner.open({ fd: openSync(data.file, 'r'), sizeBytes: data.sizeBytes }, hash);
  const storage = data.storing === undefined ? undefined : openStorage(data.storing);
  const send = (message: FromStripeWorker, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);
  const fail = (error: unknown) => send({ type: 'failed', error: sendableError(error) });

  port.on('message', (message: ToStripeWorker) => {
    try {
      if (message.type === 'scan') {
        const result = scan(message.stripe);
        send({ type: 'scanned', result }, [result.entries.buffer]);
        return;
      }
      send({ type: 'finished', packs: storage?.packs.finish() ?? [] });
    } catch (error) {
      fail(error);
    }
    // After a failure nothing more is asked of this thread.
    port.close();
  });

  function scan(stripe: number): StripeResult {
    const entries = new GrowingBytes(1024 * MANIFEST_ENTRY_BYTES);
    let [newChunks, newBytes, storedBytes] = [0, 0, 0];
    for (const stretch of scanner.scan(stripe, () => storage?.packs.settle())) {
      const entry = entries.extend(MANIFEST_ENTRY_BYTES);
      const plainBytes = stretch.type === 'hole' ? stretch.lengthBytes : stretch.bytes.length;
      const view = viewOf(entry);
      view.setUint32(32, plainBytes / PAGE_BYTES, true);
      if (stretch.type === 'hole') {
        view.setUint32(36, HOLE_FLAG, true);
        continue;
      }
      entry.set(stretch.id);
      if (storage?.known.add(entry) !== true) continue;
      const frame = storage.encode(stretch.bytes);
      storage.packs.add(stretch.id, { plainBytes, ...frame });
      newChunks++;
      newBytes += plainBytes;
      storedBytes += frame.stored.length;
    }
    return { stripe, entries: entries.bytes().slice(), newChunks, newBytes, storedBytes };
  }

  function openStorage({ directory, level, fsync, known }: StripeStoring) {
    const codec = level === undefined ? undefined : createZstdCodec({ level });
    return {
      known: new SharedIdSet(known),
      packs: new PackWriter({ directory, prefix: String(data.worker), hash, fsync }),
      encode: (plain: Uint8Array) => codec?.encode(plain) ?? ({ encoding: 'raw', stored: plain } as const),
    };
  }
}

if (parentPort !== null) {
  const port = parentPort;
  main(port, workerData as StripeWorkerData).catch((error: unknown) => {
    port.postMessage({ type: 'failed', error: sendableError(error) } satisfies FromStripeWorker);
    port.close();
  });
}
