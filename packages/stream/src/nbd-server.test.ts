import { once } from 'node:events';
import { mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { umask } from 'node:process';

import { createMemoryRandomAccess, type RandomAccess } from '@decant/cas';
import { DecantError, untilAborted } from '@decant/core';
import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { serveNbd, type NbdServer, type ServeNbdOptions } from './nbd-server.ts';
import { SocketReader } from './socket-reader.ts';
import { answer, infoData, option, reply, request, u16, u32, u64 } from './test-nbd-client.ts';

const bytes = new Uint8Array(100_000).map((_, i) => (i * 31) ^ (i >> 8));
let folder: string;
let socketPath: string;
let server: NbdServer | undefined;
let errors: unknown[] = [];
const sockets: Socket[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-'));
  socketPath = join(folder, 's');
  errors = [];
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server?.close();
  server = undefined;
  await rm(folder, { recursive: true });
});

async function serve(extra: Partial<ServeNbdOptions> = {}) {
  const exports = new Map<string, RandomAccess>([['disk', createMemoryRandomAccess(bytes)]]);
  server = await serveNbd({ listen: { socketPath }, exports, onError: (error) => errors.push(error), ...extra });
  return server;
}

/** A client that speaks bytes. */
async function dial(flags: number | null = 3, socket = connect(socketPath)) {
  sockets.push(socket);
  socket.on('error', () => undefined);
  const reader = new SocketReader(socket);
  await once(socket, 'connect');
  const read = async (length: number) => {
    const got = await reader.exactly(length);
    if (got === undefined) throw new Error('closed');
    return got;
  };
  const greeting = await read(18);
  if (flags !== null) socket.write(u32(flags));
  /** Reads what still comes, until the server has closed. */
  const drain = async () => {
    while ((await reader.exactly(1)) !== undefined);
  };
  return { socket, read, drain, greeting, closed: async () => (await reader.exactly(1)) === undefined };
}
type Client = Awaited<ReturnType<typeof dial>>;

async function attach(name = 'disk') {
  const client = await dial();
  client.socket.write(option(7, infoData(name)));
  for (;;) if ((await reply(client)).type === 1) return client;
}

test('GO: size, read-only and multi-connection flags, block sizes', async () => {
  await serve();
  const client = await dial();
  expect(client.greeting).toEqual(Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(3)]));
  client.socket.write(option(7, infoData('disk', [1, 3])));
  const replies = [await reply(client), await reply(client), await reply(client), await reply(client)];
  expect(replies.map(({ type }) => type)).toEqual([3, 3, 3, 1]);
  expect(replies[0]!.data).toEqual(Buffer.concat([u16(0), u64(100_000), u16(0x103)]));
  expect(replies[1]!.data).toEqual(Buffer.concat([u16(1), Buffer.from('disk')]));
  expect(replies[2]!.data).toEqual(Buffer.concat([u16(3), u32(1), u32(4096), u32(32 * 1024 * 1024)]));
  client.socket.write(request(0, 4097, 333));
  const { cookie, data } = await answer(client, 333);
  expect(cookie).toBe(7n);
  expect(data).toEqual(Buffer.from(bytes.subarray(4097, 4430)));
});

test('EXPORT_NAME with and without zeroes; the empty name is the only export', async () => {
  await serve();
  for (const [flags, zeroes] of [
    [1, 124],
    [3, 0],
  ] as const) {
    const client = await dial(flags);
    client.socket.write(option(1, Buffer.from('')));
    expect(await client.read(10 + zeroes)).toEqual(Buffer.concat([u64(100_000), u16(0x103), Buffer.alloc(zeroes)]));
    client.socket.write(request(0, 0, 5));
    expect((await answer(client, 5)).data).toEqual(Buffer.from(bytes.subarray(0, 5)));
  }
});

test('LIST, INFO, unknown options and names, and ABORT', async () => {
  await serve();
  const client = await dial();
  client.socket.write(option(3));
  expect((await reply(client)).data).toEqual(Buffer.concat([u32(4), Buffer.from('disk')]));
  expect((await reply(client)).type).toBe(1);
  client.socket.write(option(3, Buffer.from('x')));
  expect((await reply(client)).type).toBe(0x80000003);
  for (const unknown of [5, 8, 9, 10, 12345]) {
    client.socket.write(option(unknown, Buffer.alloc(9)));
    expect(await reply(client)).toMatchObject({ option: unknown, type: 0x80000001 });
  }
  client.socket.write(option(6, infoData('other')));
  expect((await reply(client)).type).toBe(0x80000006);
  for (const bad of [Buffer.alloc(0), u32(0xffffffff), Buffer.concat([infoData('disk'), u16(1)])]) {
    client.socket.write(option(6, bad));
    expect((await reply(client)).type).toBe(0x80000003);
  }
  client.socket.write(option(2));
  expect((await reply(client)).type).toBe(1);
  expect(await client.closed()).toBe(true);
});

test('out of range, too long, empty and unknown requests are EINVAL, writes EPERM, and the connection goes on', async () => {
  await serve();
  const client = await attach();
  const cases: [Buffer, number][] = [
    [request(0, 99_999, 2), 22],
    [request(0, 2n ** 64n - 1n, 1), 22],
    [request(0, 0, 32 * 1024 * 1024 + 1), 22],
    [request(0, 0, 0), 22],
    [request(0, 0, 1, 7n, 0x8000), 22],
    [request(3, 0, 0), 22],
    [request(7, 0, 4096), 22],
    [request(999, 0, 4096), 22],
    [Buffer.concat([request(1, 0, 5000), Buffer.alloc(5000)]), 1],
    [request(4, 0, 4096), 1],
    [request(6, 0, 4096), 1],
  ];
  for (const [sent, error] of cases) {
    client.socket.write(sent);
    expect(await answer(client, 0)).toMatchObject({ error, cookie: 7n });
  }
  client.socket.write(request(0, 99_999, 1));
  expect((await answer(client, 1)).data).toEqual(Buffer.from([bytes[99_999]!]));
  client.socket.write(request(2, 0, 0));
  expect(await client.closed()).toBe(true);
});

test('a read that fails is EIO for that read alone', async () => {
  const disk: RandomAccess = {
    sizeBytes: 8192,
    read: (offset, length) =>
      offset === 0
        ? Promise.reject(new DecantError('STREAM_READ_FAILED', 'The chunk is bad.'))
        : Promise.resolve(new Uint8Array(length)),
  };
  await serve({ exports: new Map([['disk', disk]]) });
  const client = await attach();
  client.socket.write(Buffer.concat([request(0, 0, 4096, 1n)]));
  expect(await answer(client, 0)).toMatchObject({ error: 5, cookie: 1n });
  client.socket.write(request(0, 4096, 4096, 2n));
  expect(await answer(client, 4096)).toMatchObject({ error: 0, cookie: 2n });
  expect(errors).toMatchObject([{ code: 'STREAM_READ_FAILED' }]);
});

test('pipelined requests are bounded: beyond 64 the socket is not read', async () => {
  let open = 0;
  let most = 0;
  let release = () => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  const disk: RandomAccess = {
    sizeBytes: 4096,
    async read(_, length) {
      most = Math.max(most, ++open);
      await gate;
      open--;
      return new Uint8Array(length);
    },
  };
  await serve({ exports: new Map([['disk', disk]]) });
  const client = await attach();
  client.socket.write(Buffer.concat(Array.from({ length: 500 }, (_, i) => request(0, 0, 8, BigInt(i)))));
  await expect.poll(() => open).toBe(64);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(open).toBe(64);
  release();
  const cookies = new Set<bigint>();
  for (let i = 0; i < 500; i++) cookies.add((await answer(client, 8)).cookie);
  expect(cookies.size).toBe(500);
  expect(most).toBe(64);
});

test('requests that are worked on have 32 MiB together at the most, but for one of any length', async () => {
  let open = 0;
  let most = 0;
  let release = () => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  const disk: RandomAccess = {
    sizeBytes: 64 * 2 ** 20,
    async read() {
      most = Math.max(most, ++open);
      await gate;
      open--;
      return new Uint8Array(8);
    },
  };
  await serve({ exports: new Map([['disk', disk]]) });
  const client = await attach();
  const lengths = [32 * 2 ** 20, 1];
  client.socket.write(Buffer.concat([request(0, 0, 32 * 2 ** 20 + 1), ...lengths.map((n) => request(0, 0, n))]));
  expect((await answer(client, 0)).error).toBe(22);
  await expect.poll(() => open).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 50));
  release();
  for (const _ of lengths) expect((await answer(client, 8)).error).toBe(0);
  expect(most).toBe(1);
});

test('a client that does not take its answers is not read for', async () => {
  const data = new Uint8Array(2 ** 20);
  let reads = 0;
  const disk: RandomAccess = { sizeBytes: 2 ** 20, read: async () => (reads++, data) };
  await serve({ exports: new Map([['disk', disk]]) });
  const client = await attach();
  client.socket.write(Buffer.concat(Array.from({ length: 300 }, () => request(0, 0, 2 ** 20))));
  await expect.poll(() => reads).toBeGreaterThanOrEqual(32);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(reads).toBeLessThan(100);
});

test('the time for a handshake ends with it, and is what a client has to close its side', async () => {
  using timers = vi.spyOn(globalThis, 'setTimeout');
  using cleared = vi.spyOn(globalThis, 'clearTimeout');
  // Of no other timer here.
  const handshakeTimeoutMs = 61_234;
  const ours = () => timers.mock.calls.flatMap(([, ms], i) => (ms === handshakeTimeoutMs ? [i] : []));
  await serve({ handshakeTimeoutMs });
  const socket = connect({ path: socketPath, allowHalfOpen: true });
  const client = await dial(3, socket);
  client.socket.write(option(7, infoData('disk')));
  while ((await reply(client)).type !== 1);
  client.socket.write(request(0, 0, 1));
  await answer(client, 1);
  expect(cleared.mock.calls.flat()).toContain(timers.mock.results[ours()[0]!]!.value);
  client.socket.write(request(2, 0, 0));
  expect(await client.closed()).toBe(true);
  await expect.poll(() => ours().length).toBe(2);
  expect(server!.connections).toBe(1);
  timers.mock.calls[ours()[1]!]![0]();
  await expect.poll(() => server!.connections).toBe(0);
});

test('what was asked for before the client disconnects is still answered', async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  const disk: RandomAccess = { sizeBytes: 4096, read: (_, length) => gate.then(() => new Uint8Array(length)) };
  await serve({ exports: new Map([['disk', disk]]) });
  const client = await attach();
  client.socket.write(Buffer.concat([request(0, 0, 8, 1n), request(2, 0, 0)]));
  // Answered on another connection, so that this one has been read to its end.
  const other = await attach();
  other.socket.write(request(7, 0, 1));
  expect((await answer(other, 0)).error).toBe(22);
  release();
  expect(await answer(client, 8)).toMatchObject({ error: 0, cookie: 1n });
  expect(await client.closed()).toBe(true);
});

test('a read ends with the client it is for, and with the server, and is no error then', async () => {
  const signals: AbortSignal[] = [];
  const disk: RandomAccess = {
    sizeBytes: 4096,
    read: (_, length, { signal } = {}) => {
      signals.push(signal!);
      return untilAborted(new Promise<Uint8Array>(() => length), signal);
    },
  };
  await serve({ exports: new Map([['disk', disk]]) });
  const [leaving, staying] = [await attach(), await attach()];
  for (const client of [leaving, staying]) {
    client.socket.write(request(0, 0, 1));
    await expect.poll(() => signals.length).toBe(client === leaving ? 1 : 2);
  }
  leaving.socket.destroy();
  await expect.poll(() => signals[0]!.aborted).toBe(true);
  expect(signals[1]!.aborted).toBe(false);
  await server!.close();
  expect(signals[1]!.aborted).toBe(true);
  await expect.poll(() => server!.connections).toBe(0);
  expect(errors).toEqual([]);
});

test('a client that breaks the protocol loses its connection and nobody else does', async () => {
  await serve();
  const good = await attach();
  const garbage: ((client: Client) => Uint8Array)[] = [
    () => Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    () => Buffer.concat([u32(3), Buffer.alloc(64, 0xff)]),
    () => Buffer.concat([u32(3), option(7, Buffer.alloc(0), 0xffffffff)]),
    () => Buffer.concat([u32(3), option(1, Buffer.from('nowhere'))]),
    () => Buffer.concat([u32(3), ...Array.from({ length: 65 }, () => option(99))]),
    () => Buffer.concat([u32(3), option(1, Buffer.from('disk')), Buffer.alloc(28)]),
    () => Buffer.concat([u32(3), option(1, Buffer.from('disk')), request(1, 0, 0xffffffff)]),
  ];
  for (const [index, make] of garbage.entries()) {
    const client = await dial(null);
    client.socket.write(make(client));
    await client.drain();
    expect(errors.length, `case ${index}`).toBe(index + 1);
    expect(errors.at(-1)).toMatchObject({ code: 'NBD_PROTOCOL' });
  }
  good.socket.write(request(0, 0, 4));
  expect((await answer(good, 4)).error).toBe(0);
});

test('random bytes after the greeting never stop the server', async () => {
  await serve({ handshakeTimeoutMs: 20_000 });
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.boolean(), async (noise, inTransmission) => {
      const client = inTransmission ? await attach() : await dial();
      client.socket.end(noise);
      await client.drain();
    }),
    { numRuns: 80 },
  );
  const client = await attach();
  client.socket.write(request(0, 1, 1));
  expect((await answer(client, 1)).error).toBe(0);
});

test('a silent client is cut off', async () => {
  await serve({ handshakeTimeoutMs: 50 });
  const silent = connect(socketPath);
  sockets.push(silent);
  silent.on('error', () => undefined);
  silent.resume();
  await once(silent, 'close');
  await expect.poll(() => server!.connections).toBe(0);
});

test('clients beyond the limit are turned away, until one has gone', async () => {
  await serve({ maxConnections: 1, handshakeTimeoutMs: 60_000 });
  const first = await dial();
  await expect(dial()).rejects.toThrow();
  first.socket.destroy();
  await expect.poll(() => server!.connections).toBe(0);
  await attach();
});

test('the socket has mode 0600, is removed at the end, replaces a dead one and refuses a live one', async () => {
  const before = umask(0o027);
  const first = await serve();
  expect(umask(before)).toBe(0o027);
  expect((await stat(socketPath)).mode & 0o777).toBe(0o600);
  await expect(serveNbd({ listen: { socketPath }, exports: new Map() })).rejects.toMatchObject({ code: 'CONFLICT' });
  const client = await attach();
  await first.close();
  expect(await client.closed()).toBe(true);
  await expect(stat(socketPath)).rejects.toMatchObject({ code: 'ENOENT' });
  // A socket file that nobody listens on any more.
  const dead = createServer().listen(join(folder, 'moved'));
  await once(dead, 'listening');
  await rename(join(folder, 'moved'), socketPath);
  dead.close();
  await once(dead, 'close');
  expect((await stat(socketPath)).isSocket()).toBe(true);
  await serve();
  await attach();
});

test('a path that cannot be a socket is refused before anything is removed', async () => {
  const file = join(folder, 'file');
  await writeFile(file, 'precious');
  const exports = new Map();
  await expect(serveNbd({ listen: { socketPath: file }, exports })).rejects.toMatchObject({ code: 'USAGE' });
  expect((await stat(file)).size).toBe(8);
  const long = join(folder, 'x'.repeat(120));
  await expect(serveNbd({ listen: { socketPath: long }, exports })).rejects.toMatchObject({ code: 'USAGE' });
});

test('aborting closes the server; TCP gives its port', async () => {
  const abort = new AbortController();
  const tcp = await serveNbd({
    listen: { host: '127.0.0.1', port: 0 },
    exports: new Map(),
    signal: abort.signal,
  });
  expect(tcp.uri).toBe(`nbd://127.0.0.1:${tcp.port}/`);
  const client = connect(tcp.port!, '127.0.0.1');
  sockets.push(client);
  client.on('error', () => undefined);
  await once(client, 'connect');
  await expect.poll(() => tcp.connections).toBe(1);
  const left = once(client, 'close');
  client.resume();
  abort.abort();
  await tcp.close();
  await left;
  expect(tcp.connections).toBe(0);
});
