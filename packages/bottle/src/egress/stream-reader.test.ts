import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { relayBody } from './body.ts';
import { readHead } from './head-buffer.ts';
import { isDeaf, keepReading, StreamReader, writeAll, writeTo } from './stream-reader.ts';

const parse = (bytes: Buffer) => {
  const end = bytes.indexOf('\r\n\r\n');
  return end < 0 ? undefined : { headBytes: end + 4, text: bytes.toString('latin1', 0, end) };
};
const TIMES = { firstByteMs: 200, headMs: 200 };

describe('readHead', () => {
  test('however a head is cut into pieces it is the same, and what follows it stays', async () => {
    const whole = Buffer.from(`GET / HTTP/1.1\r\n${'x: y\r\n'.repeat(50)}\r\nbody`);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(whole.length), { maxLength: 20 }), async (cuts) => {
        const stream = new PassThrough();
        const reader = new StreamReader(stream);
        const at = [0, ...cuts.toSorted((a, b) => a - b), whole.length];
        for (const [i, from] of at.slice(0, -1).entries()) stream.write(whole.subarray(from, at[i + 1]));
        stream.end();
        const head = await readHead(reader, TIMES, 65_536, parse);
        expect(head?.headBytes).toBe(whole.length - 4);
        let rest = '';
        for (let piece = await reader.read(100); piece !== undefined; piece = await reader.read(100))
          rest += piece.toString('latin1');
        expect(rest).toBe('body');
      }),
      { numRuns: 50 },
    );
  });

  test('silence, a stall, an end within and a head without an end are told apart', async () => {
    const outcome = async (send: (stream: PassThrough) => void) => {
      const stream = new PassThrough();
      send(stream);
      return await readHead(new StreamReader(stream), { firstByteMs: 50, headMs: 50 }, 1000, parse).then(
        (head) => head,
        (error: { kind: string }) => error.kind,
      );
    };
    expect(await outcome(() => undefined)).toBe('idle');
    expect(await outcome((stream) => stream.write('GET'))).toBe('slow');
    expect(await outcome((stream) => stream.end('GET'))).toBe('broken');
    expect(await outcome((stream) => stream.end())).toBeUndefined();
    expect(await outcome((stream) => stream.write('x'.repeat(1001)))).toBe('invalid');
  });

  test('a head that comes byte by byte is looked at no more often than its size deserves', async () => {
    const stream = new PassThrough();
    const reader = new StreamReader(stream);
    let looks = 0;
    const done = readHead(reader, { firstByteMs: 5000, headMs: 5000 }, 65_536, (bytes) => {
      looks++;
      return parse(bytes);
    });
    for (let i = 0; i < 40_000; i++) stream.write('x');
    stream.write('\r\n\r\n');
    expect((await done)?.headBytes).toBe(40_004);
    expect(looks).toBeLessThan(100);
  });
});

describe('keepReading', () => {
  test('what a server said before it closed on somebody who was still sending is read', async () => {
    await using server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    const [[peer]] = (await Promise.all([once(server, 'connection'), once(client, 'connect')])) as [[Socket], unknown];
    keepReading(client);
    const reader = new StreamReader(client);
    // In one turn, so that nothing is read in between.
    peer.write('HTTP/1.1 413 Too Large');
    peer.resetAndDestroy();
    const refused = async () => {
      for (;;) {
        await writeTo(client, 'more', 1000);
        if (isDeaf(client)) return;
      }
    };
    await Promise.race([refused(), once(client, 'close')]);
    await expect(writeTo(client, 'x', 1000)).rejects.toMatchObject({ kind: 'broken' });
    await expect(writeAll(client, ['x'], 1000)).rejects.toMatchObject({ kind: 'broken' });
    expect((await reader.read(60_000))?.toString('latin1')).toBe('HTTP/1.1 413 Too Large');
    // The reset was told to who wrote. Without a length of its own, what was read is not known to be all.
    const onBytes = () => undefined;
    const rest = { from: reader, to: new PassThrough(), framing: { type: 'until-close' }, onBytes } as const;
    await expect(relayBody({ ...rest, chunksOut: true, idleTimeMs: 60_000 })).rejects.toMatchObject({ kind: 'broken' });
  });
});

describe('relayBody', () => {
  const relay = async (input: string, framing: Parameters<typeof relayBody>[0]['framing'], chunksOut = true) => {
    const from = new PassThrough();
    const to = new PassThrough();
    const reader = new StreamReader(from);
    from.end(input);
    let bytes = 0;
    await relayBody({ from: reader, to, framing, chunksOut, idleTimeMs: 500, onBytes: (count) => (bytes += count) });
    to.end();
    const text = Buffer.concat((await to.toArray()) as Buffer[]).toString('latin1');
    return { text, bytes, next: (await reader.read(100))?.toString('latin1') };
  };

  test('bodies by length and in chunks end where they end', async () => {
    expect(await relay('12345rest', { type: 'length', bytes: 5 })).toEqual({ text: '12345', bytes: 5, next: 'rest' });
    expect(await relay('3;ext="x"\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\nrest', { type: 'chunked' })).toEqual({
      text: '5\r\nabcde\r\n0\r\nx-sum: 5\r\n\r\n',
      bytes: 5,
      next: 'rest',
    });
    expect((await relay('3\r\nabc\r\n0\r\n\r\n', { type: 'chunked' }, false)).text).toBe('abc');
    expect((await relay('all', { type: 'until-close' })).text).toBe('all');
  });

  test('a body of more than is read ahead passes whole', async () => {
    const from = new PassThrough();
    const to = new PassThrough();
    to.resume();
    let bytes = 0;
    const onBytes = (count: number) => void (bytes += count);
    const reader = new StreamReader(from);
    // All of it is there before any is taken, so that the sender has been made to wait.
    for (let i = 0; i < 64; i++) from.write(Buffer.alloc(64 * 1024));
    await new Promise((resolve) => setImmediate(resolve));
    expect(from.isPaused()).toBe(true);
    const framing = { type: 'length', bytes: 64 * 64 * 1024 } as const;
    await relayBody({ from: reader, to, framing, chunksOut: true, idleTimeMs: 60_000, onBytes });
    expect(bytes).toBe(framing.bytes);
  });

  test('a connection that is closed without an end is broken', async () => {
    const stream = new PassThrough();
    const reader = new StreamReader(stream);
    const read = reader.read(60_000);
    stream.destroy();
    await expect(read).rejects.toMatchObject({ kind: 'broken' });
    expect(reader.unusable).toBe(true);
  });

  test('a body that ends early or is malformed is at fault', async () => {
    await expect(relay('123', { type: 'length', bytes: 5 })).rejects.toMatchObject({ kind: 'broken' });
    await expect(relay('3\r\nab', { type: 'chunked' })).rejects.toMatchObject({ kind: 'broken' });
    await expect(relay('z\r\n', { type: 'chunked' })).rejects.toMatchObject({ kind: 'invalid' });
  });

  test('a receiver that takes nothing stops the sender, and is given up', async () => {
    const from = new PassThrough();
    const to = new PassThrough({ highWaterMark: 1024 });
    for (let i = 0; i < 40; i++) from.write(Buffer.alloc(64 * 1024));
    const relayed = relayBody({
      from: new StreamReader(from),
      to,
      framing: { type: 'length', bytes: 1e7 },
      chunksOut: true,
      idleTimeMs: 50,
      onBytes: () => undefined,
    });
    await expect(relayed).rejects.toMatchObject({ kind: 'slow' });
    expect(to.readableLength + to.writableLength).toBeLessThan(768 * 1024);
  });
});
