import { MIB } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { digestOf } from '../testing/make-layout.ts';
import { failure, gather } from '../testing/streams.ts';
import { RepositoryClient } from './client.ts';
import { download } from './download.ts';

const BYTES = Buffer.alloc(7 * MIB, 'some bytes ');
const BLOB = { digest: digestOf(BYTES), size: BYTES.length, mediaType: 'a/b' };

/** A client of a registry whose bodies are made here; `asked` are the headers it got. */
function clientOf(answer: (start: number) => ReadableStream<Uint8Array<ArrayBuffer>>) {
  const asked: Headers[] = [];
  const fetch = async (_: unknown, init?: RequestInit): Promise<Response> => {
    const headers = new Headers(init?.headers);
    asked.push(headers);
    const start = Number(/^bytes=(\d+)-$/.exec(headers.get('range') ?? '')?.[1] ?? 0);
    const range = `bytes ${start}-${BYTES.length - 1}/${BYTES.length}`;
    return new Response(answer(start), {
      status: start > 0 ? 206 : 200,
      headers: start > 0 ? { 'content-range': range } : {},
    });
  };
  const reference = { registry: 'registry.example', repository: 'app' };
  return {
    client: new RepositoryClient({ reference, fetch, credentials: undefined, access: 'pull' }),
    asked,
  };
}

/** A body of these pieces that then goes on as told; `given` counts pieces, `cancelled` tells whether its reader left. */
function body(pieces: readonly Uint8Array[], then: 'ends' | 'fails' | 'waits') {
  const state = { given: 0, cancelled: false };
  const stream = new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      pull(controller) {
        const piece = pieces[state.given++];
        if (piece !== undefined) controller.enqueue(new Uint8Array(piece));
        else if (then === 'ends') controller.close();
        else if (then === 'fails') controller.error(new Error('cut'));
        else return new Promise(() => undefined);
        return undefined;
      },
      cancel() {
        state.cancelled = true;
      },
    },
    { highWaterMark: 0 },
  );
  return { stream, state };
}

describe('a download', () => {
  it('goes on where it was cut, as often as it gets on by a MiB', async () => {
    const { client, asked } = clientOf((start) => body([BYTES.subarray(start, start + MIB)], 'fails').stream);
    expect(digestOf(await gather(download(client, BLOB)))).toBe(BLOB.digest);
    expect(asked.map((headers) => headers.get('range'))).toEqual([
      null,
      ...Array.from({ length: 6 }, (_, i) => `bytes=${(i + 1) * MIB}-`),
    ]);
    expect(asked.every((headers) => headers.get('accept-encoding') === 'identity')).toBe(true);
  });

  it('fails at the first byte too many', async () => {
    const more = body([BYTES, Buffer.alloc(1), Buffer.alloc(1)], 'waits');
    const { client } = clientOf(() => more.stream);
    expect(await failure(gather(download(client, BLOB)))).toBe('OCI_DIGEST_MISMATCH');
    expect(more.state).toEqual({ given: 2, cancelled: true });
  });

  it('lets the connection go when its reader leaves', async () => {
    const rest = body([BYTES.subarray(0, 10), BYTES.subarray(10)], 'waits');
    const { client } = clientOf(() => rest.stream);
    for await (const piece of download(client, BLOB)) {
      expect(piece.length).toBe(10);
      break;
    }
    expect(rest.state.cancelled).toBe(true);
  });

  it('stops when it is told to, also while nothing comes', async () => {
    const nothing = body([BYTES.subarray(0, 10)], 'waits');
    const { client } = clientOf(() => nothing.stream);
    const controller = new AbortController();
    const reason = new Error('enough');
    const pieces = download(client, BLOB, { signal: controller.signal });
    await pieces.next();
    const next = pieces.next();
    controller.abort(reason);
    await expect(next).rejects.toBe(reason);
    expect(nothing.state.cancelled).toBe(true);
  });
});
