import type { ObjectBody } from '@decant/core';

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

/** One listener per wait: a race against one long-lived promise would keep every piece until the end. */
function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
