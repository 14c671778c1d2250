import { createSocket } from 'node:dgram';
import { once } from 'node:events';

import { findProgram } from '@decant/core/node';
import { describe, expect, it } from 'vitest';

import { Prober } from './prober.ts';

const available =
  process.platform === 'linux' && process.geteuid?.() === 0 && (await findProgram('perl')) !== undefined;
const OWN = '/proc/self/ns/net';
/** Documentation address (RFC 5737), to a port that nothing would answer on. */
const closed = 'tcp closed 127.0.0.1 1 2000 -';

describe.skipIf(!available)('[backend:bubblewrap] Prober', () => {
  it('waits for its orders, says what became of them, and is used once', async () => {
    await using prober = new Prober();
    expect(prober.isReady).toBe(true);
    const answers = await prober.attempt({ networkNamespace: OWN, probes: [closed], timeoutMs: 10_000 });
    expect(answers).toMatch(/^closed failed \d+ ECONNREFUSED\n$/);
    expect(prober.isReady).toBe(false);
  });

  it('says why it cannot try', async () => {
    await using prober = new Prober();
    const attempt = prober.attempt({ networkNamespace: '/proc/self/fd/none', probes: [closed], timeoutMs: 10_000 });
    await expect(attempt).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
      message: expect.stringContaining('/proc/self/fd/none: No such file or directory'),
    });
  });

  it('ends when it is not used, when it is late, and when it is aborted', async () => {
    const unused = new Prober();
    await unused[Symbol.asyncDispose]();
    expect(unused.isReady).toBe(false);
    await using silent = await silentPort();
    const asked = { networkNamespace: OWN, probes: [`dns silent 127.0.0.1 ${silent.port} 60000 00`] };
    await using late = new Prober();
    await using aborted = new Prober();
    const reason = new Error('enough');
    const controller = new AbortController();
    const attempt = aborted.attempt({ ...asked, timeoutMs: 60_000, signal: controller.signal });
    controller.abort(reason);
    await expect(attempt).rejects.toBe(reason);
    await expect(late.attempt({ ...asked, timeoutMs: 50 })).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
      message: expect.stringContaining('more than 50 ms'),
    });
  });
});

/** A port that takes datagrams and never answers. */
async function silentPort(): Promise<AsyncDisposable & { readonly port: number }> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const close = () => new Promise<void>((resolve) => socket.close(() => resolve()));
  return { port: socket.address().port, [Symbol.asyncDispose]: close };
}
