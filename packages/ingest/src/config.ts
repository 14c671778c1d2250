import { canonicalConfig } from '@decant/cas';
import { equalBytes, imageConfigSchema, isDecantError, STAGED, toHex, type ImageConfig } from '@decant/core';

import type { IngestContext } from './admission.ts';
import { configKey } from './object-keys.ts';
import { refused } from './refuse.ts';
import { restingObject } from './resting-object.ts';

/** Largest configuration that is admitted, in bytes. */
const MAX_CONFIG_BYTES = 1024 * 1024;

/** A small staged object, whole. @throws INGEST_REFUSED when it is absent or larger than `maxBytes`. */
export async function readStaged(name: string, maxBytes: number, context: IngestContext): Promise<Uint8Array> {
  const { store, stagingPrefix, signal } = context;
  const key = `${stagingPrefix}/${name}`;
  const info = await store.head(key, { signal });
  if (info === undefined) throw refused(`${name} was not uploaded.`);
  if (info.sizeBytes > maxBytes) throw refused(`${name} has ${info.sizeBytes} bytes; ${maxBytes} are allowed.`);
  try {
    return await store.get(key, { range: { offset: 0, lengthBytes: info.sizeBytes }, signal });
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof RangeError || isDecantError(error, 'OBJECT_NOT_FOUND')) {
      throw refused(`${name} changed while it was read.`, {}, error);
    }
    throw error;
  }
}

/**
 * Admits the configuration whose digest an image carries: the staged document must be canonical, of known
 * members only, and have that digest. Returns the digest as hex; null when the image carries none.
 */
export async function admitConfig(digest: Uint8Array, context: IngestContext): Promise<string | null> {
  if (digest.every((byte) => byte === 0)) return null;
  const { bytes } = await stagedConfig(context);
  if (!equalBytes(context.hash.blake3(bytes), digest)) {
    throw refused(`${STAGED.config} does not have the digest that the manifest names.`);
  }
  return storeConfig(bytes, context);
}

/** Admits the configuration that was staged beside an image that carries no digest of it; null when none was. */
export async function admitOptionalConfig(
  context: IngestContext,
): Promise<{ readonly digest: string; readonly config: ImageConfig } | null> {
  const { store, stagingPrefix, signal } = context;
  if ((await store.head(`${stagingPrefix}/${STAGED.config}`, { signal })) === undefined) return null;
  const { bytes, config } = await stagedConfig(context);
  return { digest: await storeConfig(bytes, context), config };
}

async function stagedConfig(context: IngestContext): Promise<{ bytes: Uint8Array; config: ImageConfig }> {
  const bytes = await readStaged(STAGED.config, MAX_CONFIG_BYTES, context);
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    const config = imageConfigSchema.parse(JSON.parse(text));
    if (!equalBytes(canonicalConfig(config), bytes)) throw new TypeError('it is not in canonical form');
    return { bytes, config };
  } catch (error) {
    throw refused(`${STAGED.config} is not an image configuration.`, {}, error);
  }
}

async function storeConfig(bytes: Uint8Array, { store, hash, namespace, signal }: IngestContext): Promise<string> {
  const digest = toHex(hash.blake3(bytes));
  const key = configKey(namespace, digest);
  const resting = await restingObject(store, key, bytes.length, signal);
  if (resting === undefined || !equalBytes(resting, bytes)) await store.put(key, bytes, { signal });
  return digest;
}
