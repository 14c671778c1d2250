import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import { Duplex } from 'node:stream';

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { MAX_CLIENT_HELLO_BYTES, parseClientHello } from './client-hello.ts';

/** The first bytes that OpenSSL sends. */
async function realHello(options: ConnectionOptions): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const wire = new Duplex({ read: () => undefined, write: (chunk: Buffer, _, done) => (resolve(chunk), done()) });
  const socket = connectTls({ ...options, socket: wire });
  socket.on('error', () => undefined);
  const hello = await promise;
  socket.destroy();
  return hello;
}

const u16 = (value: number) => [value >> 8, value & 0xff];
const vector = (size: 1 | 2 | 3, bytes: readonly number[]) => [
  ...[bytes.length >> 16, (bytes.length >> 8) & 0xff, bytes.length & 0xff].slice(3 - size),
  ...bytes,
];
const ascii = (text: string) => [...Buffer.from(text, 'latin1')];
const extension = (type: number, data: readonly number[]) => [...u16(type), ...vector(2, data)];
const serverName = (...names: readonly string[]) =>
  extension(
    0,
    vector(
      2,
      names.flatMap((name) => [0, ...vector(2, ascii(name))]),
    ),
  );
/** A ClientHello written by the standard, with what breaks it. */
function message(
  extensions: readonly number[] | undefined,
  given: { readonly session?: number; readonly suites?: number } = {},
): number[] {
  const { session = 32, suites = 2 } = given;
  const body = [
    3,
    3,
    ...Array.from({ length: 32 }, () => 7),
    ...vector(
      1,
      Array.from({ length: session }, () => 0),
    ),
    ...vector(
      2,
      Array.from({ length: suites }, () => 0x13),
    ),
    1,
    0,
  ];
  return [1, ...vector(3, extensions === undefined ? body : [...body, ...vector(2, extensions)])];
}
const records = (bytes: readonly number[], size = 16_384) => {
  const pieces: number[] = [];
  for (let at = 0; at < bytes.length; at += size) pieces.push(22, 3, 1, ...vector(2, bytes.slice(at, at + size)));
  return Uint8Array.from(pieces);
};
const ruleOf = (bytes: Uint8Array) => {
  const read = parseClientHello(bytes);
  return read.type === 'refused' ? read.rule : read.type;
};

describe('a ClientHello', () => {
  it('of OpenSSL is read, whole or in any pieces of it', async () => {
    for (const minVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const hello = await realHello({ servername: 'api.example.com', ALPNProtocols: ['h2', 'http/1.1'], minVersion });
      const expected = {
        type: 'hello',
        serverName: 'api.example.com',
        protocols: ['h2', 'http/1.1'],
        encryptedClientHello: false,
      };
      expect(parseClientHello(hello)).toEqual(expected);
      for (let length = 0; length < hello.length; length++)
        expect(parseClientHello(hello.subarray(0, length))).toEqual({ type: 'incomplete' });
      // The same message in records of every size that is not refused for their number.
      const inner = [...hello.subarray(5)];
      for (let size = Math.ceil(inner.length / 64); size < inner.length; size += 7)
        expect(parseClientHello(records(inner, size))).toEqual(expected);
    }
  });

  it('without a name, with grease and with an encrypted one is told apart', async () => {
    expect(parseClientHello(await realHello({ host: '203.0.113.9' }))).toMatchObject({
      type: 'hello',
      serverName: null,
    });
    expect(parseClientHello(records(message(undefined)))).toMatchObject({ serverName: null });
    const greased = [...extension(0x0a0a, []), ...serverName('a.test'), ...extension(0xfafa, [0])];
    expect(parseClientHello(records(message(greased)))).toMatchObject({
      serverName: 'a.test',
      encryptedClientHello: false,
    });
    expect(parseClientHello(records(message([...greased, ...extension(0xfe0d, [0, 1, 2])])))).toMatchObject({
      encryptedClientHello: true,
    });
  });

  it.each<[string, Uint8Array]>([
    ['two server name extensions', records(message([...serverName('a.test'), ...serverName('b.test')]))],
    ['two names in one', records(message(serverName('a.test', 'b.test')))],
    ['no name in it', records(message(serverName()))],
    ['an empty name', records(message(serverName('')))],
    ['a name of another type', records(message(extension(0, [0, 4, 1, 0, 1, 97])))],
    ['a NUL in the name', records(message(serverName('a.test\0.b')))],
    ['a blank in the name', records(message(serverName('a b')))],
    ['bytes behind the list', records(message(extension(0, [0, 4, 0, 0, 1, 97, 0])))],
    ['any extension twice', records(message([...extension(7, []), ...extension(7, [])]))],
    ['an extension that ends early', records(message([...u16(0), 0, 9, 1]))],
    ['an empty protocol', records(message(extension(16, [0, 1, 0])))],
    ['no protocol', records(message(extension(16, [0, 0])))],
    ['a session of 33 bytes', records(message([], { session: 33 }))],
    ['half a cipher suite', records(message([], { suites: 3 }))],
    ['bytes behind the extensions', records([1, ...vector(3, [...message(serverName('a.test')).slice(4), 0])])],
    ['another message behind it', records([...message([]), 1])],
    ['another handshake message', records([2, 0, 0, 0])],
    ['a length of 16 MiB', records([1, 255, 255, 255])],
    ['an empty record', Uint8Array.of(22, 3, 1, 0, 0)],
    ['a record of 16,385 bytes', Uint8Array.of(22, 3, 1, 0x40, 1)],
    ['a record of one byte each', records(message(serverName('a.test')), 1)],
    ['an alert first', Uint8Array.of(21, 3, 1, 0, 2)],
    ['an alert between its records', Uint8Array.of(...records(message([]).slice(0, 20)), 21)],
    ['SSL 2', Uint8Array.of(0x80, 0x2e, 1, 3, 1)],
    ['another version', Uint8Array.of(22, 4, 1, 0, 1)],
    ['HTTP', Uint8Array.from(ascii('GET / HTTP/1.1\r\n'))],
  ])('with %s is refused', (_, bytes) => expect(ruleOf(bytes)).toBe('bad-client-hello'));

  it('that never ends is refused at its bound', () => {
    const long = message(
      extension(
        21,
        Array.from({ length: 16_500 }, () => 0),
      ),
    );
    expect(ruleOf(records(long))).toBe('bad-client-hello');
    const most = message(
      extension(
        21,
        Array.from({ length: 16_384 - 80 - 4 - 2 - 4 }, () => 0),
      ),
    );
    expect(ruleOf(records(most))).toBe('hello');
    expect(records(most).length).toBeLessThan(MAX_CLIENT_HELLO_BYTES);
  });

  it('with any bytes changed has one name of printable characters, or is refused', async () => {
    const hello = await realHello({ servername: 'api.example.com' });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(hello.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.nat(hello.length),
        (changes, end) => {
          const changed = Buffer.from(hello);
          for (const [at, byte] of changes) changed[at] = byte;
          const read = parseClientHello(changed.subarray(0, end === 0 ? changed.length : end));
          if (read.type === 'hello') expect(read.serverName ?? '').toMatch(/^[!-~]*$/);
        },
      ),
      { numRuns: 1000 },
    );
  });
});
