import type { HttpClient, RequestOptions } from '@decant/transport';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { sendBody } from './send-body.ts';

describe('sendBody', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** A server that takes everything and never answers. */
  const silent = {
    request: (_method: string, _path: string, { rawBody, signal }: RequestOptions) =>
      new Promise((_resolve, reject) => {
        signal!.addEventListener('abort', () => reject(signal!.reason as Error));
        void new Response(rawBody).arrayBuffer();
      }),
  } as unknown as HttpClient;

  it.each([
    { contentBytes: 0, seconds: 120 },
    { contentBytes: 5_000_000_000, seconds: 620 },
  ])('waits $seconds s for the answer to $contentBytes bytes of content', async ({ contentBytes, seconds }) => {
    async function* bytes() {
      yield new Uint8Array(10);
    }
    const failed = vi.fn();
    sendBody(silent, '/x', { headers: {}, bytes: bytes(), contentBytes, streaming: true }).catch(failed);
    await vi.advanceTimersByTimeAsync((seconds - 1) * 1000);
    expect(failed).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(2000);
    expect(failed).toHaveBeenCalledWith(expect.objectContaining({ code: 'TIMEOUT' }));
    expect(failed.mock.calls[0]![0].message).toContain(`for ${seconds} s.`);
  });
});
