import { escapeLogLine, type Namespace } from '@decant/core';

import type { ImageBuildRow, ImageBuildStore } from '../metadata/image-build-store.ts';
import type { ImageBuilder } from './image-builder.ts';

export interface LogStreamOptions {
  readonly builds: ImageBuildStore;
  readonly builder: Pick<ImageBuilder, 'changed'>;
  readonly namespace: Namespace;
  readonly build: ImageBuildRow;
  /** Last line that the client has. */
  readonly afterLine: number;
  readonly signal: AbortSignal;
}

/** Between two comments on a quiet stream, in milliseconds: proxies cut what is quiet for a minute. */
const HEARTBEAT_MS = 15_000;
/** Between two looks for what another process wrote, in milliseconds. */
const POLL_MS = 500;
/**
 * How long the end of a cancelled build is held back, in milliseconds: a client that cancels waits for the answer to
 * that, and takes an end that comes first for a failure.
 */
const CANCEL_GRACE_MS = 500;

/**
 * The log of a build as server-sent events, to its end: lines by number, then one control event. It always gets there:
 * a build whose worker is gone is ended by whoever notices.
 */
export function logStream(options: LogStreamOptions): ReadableStream<Uint8Array<ArrayBuffer>> {
  const left = new AbortController();
  const pieces = events({ ...options, signal: AbortSignal.any([options.signal, left.signal]) });
  const encoder = new TextEncoder();
  return new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      async pull(controller) {
        const next = await pieces.next();
        if (next.done === true) controller.close();
        else controller.enqueue(encoder.encode(next.value));
      },
      cancel() {
        left.abort();
      },
    },
    { highWaterMark: 1 },
  );
}

async function* events(options: LogStreamOptions): AsyncGenerator<string, void> {
  const { builds, builder, namespace, signal } = options;
  let { build } = options;
  let line = options.afterLine;
  let quietSince = performance.now();
  // Sends the head of the response at once, and tells proxies and people that there is a stream.
  yield ': log\n\n';
  for (;;) {
    // The state first: what it says has ended writes nothing more, so the log read after it is whole.
    const now = await builds.find(namespace, build.id);
    if (now !== undefined) build = now;
    const chunks = await builds.readLog(build, line);
    for (const chunk of chunks) {
      let text = '';
      for (const [i, value] of chunk.lines.entries()) {
        const number = chunk.firstLine + i;
        if (number <= line) continue;
        text += `id: ${number}\ndata: ${escapeLogLine(value)}\n\n`;
        line = number;
      }
      if (text !== '') yield text;
      quietSince = performance.now();
    }
    if (signal.aborted) return;
    if (chunks.length > 0) continue;
    const end = now === undefined ? { error: 'The build is no longer known.' } : endOf(build);
    if (end !== undefined) {
      if (build.status === 'cancelled') {
        const sinceMs = Date.now() - (build.finishedAt ?? 0);
        if (sinceMs < CANCEL_GRACE_MS) await builder.changed('', CANCEL_GRACE_MS, signal);
      }
      yield `id: ${line + 1}\ndata: ${JSON.stringify(end)}\n\n`;
      return;
    }
    await builder.changed(build.id, POLL_MS, signal);
    if (signal.aborted) return;
    if (performance.now() - quietSince > HEARTBEAT_MS) {
      quietSince = performance.now();
      yield build.status === 'queued' ? ': waiting\n\n' : ': running\n\n';
    }
  }
}

function endOf(build: ImageBuildRow): { done: true } | { error: string } | undefined {
  if (build.status === 'succeeded') return { done: true };
  if (build.status === 'queued' || build.status === 'running') return undefined;
  const { message, hint } = build.problem ?? { message: 'The build failed.' };
  return { error: hint === undefined ? message : `${message} ${hint}` };
}
