import { formatBytes } from '@decant/core';

import { loadNodeHashProvider } from '../node-hash-provider.ts';
import { print, readManifest } from './arguments.ts';
import type { Invocation } from './main.ts';

/** `diff A B`: what an owner of A lacks for B. */
export async function diff(invocation: Invocation): Promise<void> {
  const [a, b] = invocation.positionals;
  const hash = await loadNodeHashProvider();
  const from = await readManifest(a!, hash);
  const to = await readManifest(b!, hash);
  let [sharedChunks, sharedBytes] = [0, 0];
  for (const { id, plainBytes } of to.chunks()) {
    if (from.indexOf(id) === undefined) continue;
    sharedChunks++;
    sharedBytes += plainBytes;
  }
  const newChunks = to.chunkCount - sharedChunks;
  const newBytes = to.chunkBytes - sharedBytes;
  const share = to.chunkBytes === 0 ? 0 : (100 * newBytes) / to.chunkBytes;
  await print(
    invocation,
    { sharedChunks, sharedBytes, newChunks, newBytes },
    `shared  ${sharedChunks} chunks, ${formatBytes(sharedBytes)}\n` +
      `new     ${newChunks} chunks, ${formatBytes(newBytes)} (${share.toFixed(1)} %)`,
  );
}
