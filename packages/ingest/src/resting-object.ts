import { isDecantError, type ObjectStore } from '@decant/core';

/** An object of exactly this length; undefined when there is none or it has another one. */
export async function restingObject(
  store: ObjectStore,
  key: string,
  lengthBytes: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  const info = await store.head(key, { signal });
  if (info?.sizeBytes !== lengthBytes) return undefined;
  try {
    return await store.get(key, { range: { offset: 0, lengthBytes }, signal });
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof RangeError || isDecantError(error, 'OBJECT_NOT_FOUND')) return undefined;
    throw error;
  }
}
