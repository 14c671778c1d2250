import { untilAborted, type ObjectBody } from '@decant/core';

/** The body piece by piece; ends at once with the signal's reason when it aborts, even while a piece is awaited. */
export async function* piecesOf(body: ObjectBody, signal?: AbortSignal): AsyncGenerator<Uint8Array, void> {
  signal?.throwIfAborted();
  if (body instanceof Uint8Array) {
    yield body;
    return;
  }
  const iterator = body[Symbol.asyncIterator]();
  let ended = false;
  try {
    for (;;) {
      const next = await untilAborted(iterator.next(), signal);
      if (next.done === true) {
        ended = true;
        return;
      }
      yield next.value;
    }
  } catch (error) {
    // A source that failed by itself needs no return(); one that was given up does.
    ended = signal?.aborted !== true;
    throw error;
  } finally {
    // Not awaited: a source that hangs must not hold up whoever gave up on it.
    if (!ended) void Promise.resolve(iterator.return?.()).catch(() => undefined);
  }
}
