import { equalBytes, isDecantError, type ObjectStore } from '@decant/core';

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

/** Whether an object is what these pieces are together. */
export async function restsAs(
  store: ObjectStore,
  key: string,
  pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const resting = store.stream(key, { signal })[Symbol.asyncIterator]();
  let read: Uint8Array = new Uint8Array(0);
  try {
    for await (const piece of pieces) {
      for (let at = 0; at < piece.length;) {
        if (read.length === 0) {
          const next = await resting.next();
          if (next.done === true) return false;
          read = next.value;
        }
        const length = Math.min(read.length, piece.length - at);
        if (!equalBytes(read.subarray(0, length), piece.subarray(at, at + length))) return false;
        read = read.subarray(length);
        at += length;
      }
    }
    return read.length === 0 && (await resting.next()).done === true;
  } catch (error) {
    signal?.throwIfAborted();
    if (isDecantError(error, 'OBJECT_NOT_FOUND')) return false;
    throw error;
  } finally {
    await resting.return?.();
  }
}
