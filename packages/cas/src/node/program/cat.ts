import { DecantError, MIB } from '@decant/core';

import { createImageReader } from '../../image/image-reader.ts';
import { loadNodeHashProvider } from '../node-hash-provider.ts';
import { createZstdCodec } from '../zstd-codec.ts';
import { byteCount, openStore, readManifest, writeOut } from './arguments.ts';
import type { Invocation } from './main.ts';

const STEP_BYTES = 4 * MIB;

/** `cat MANIFEST --store DIR` */
export async function cat(invocation: Invocation): Promise<void> {
  const { positionals, signal } = invocation;
  const hash = await loadNodeHashProvider();
  const manifest = await readManifest(positionals[0]!, hash);
  const store = await openStore(invocation, hash);
  const reader = createImageReader(manifest, store, { hash, codec: createZstdCodec() });
  const offset = byteCount(invocation, 'offset') ?? 0;
  const length = byteCount(invocation, 'length') ?? Math.max(0, manifest.virtualBytes - offset);
  const end = offset + length;
  if (end > manifest.virtualBytes) {
    throw new DecantError(
      'USAGE',
      `The image has ${manifest.virtualBytes} bytes, so there are no ${length} at ${offset}.`,
    );
  }
  for (let at = offset; at < end; at += STEP_BYTES) {
    const bytes = await reader.read(at, Math.min(STEP_BYTES, end - at), { signal });
    await writeOut(invocation, bytes);
  }
}
