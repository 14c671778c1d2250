import { createServer, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo } from 'node:net';

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ChunkedBody } from './chunked-body.ts';
import { parseRequestHead, type RequestHead } from './http-head.ts';

const bytes = (text: string) => Buffer.from(text, 'latin1');
function head(text: string): RequestHead {
  const read = parseRequestHead(bytes(text));
  if (read.type !== 'head') throw new Error(JSON.stringify(read));
  return read;
}
const ruleOf = (text: string) => {
  const read = parseRequestHead(bytes(text));
  return read.type === 'refused' ? read.rule : read.type;
};
const get = (...lines: readonly string[]) => ['GET / HTTP/1.1', 'Host: a.test', ...lines, '', ''].join('\r\n');

describe('the head of a request', () => {
  it('is read with its body left alone', () => {
    const text =
      'POST /a?b=c HTTP/1.1\r\nHost: A.test:8080\r\nContent-Length: 4\r\nX-A:  v w\t\r\nx-a: \xe4\r\n\r\nbodyGET ';
    expect(head(text)).toMatchObject({
      method: 'POST',
      target: { form: 'origin', path: '/a?b=c' },
      host: 'A.test:8080',
      headers: [
        ['host', 'A.test:8080'],
        ['content-length', '4'],
        ['x-a', 'v w'],
        ['x-a', '\xe4'],
      ],
      body: { type: 'length', bytes: 4 },
      keepAlive: true,
      headBytes: text.indexOf('body'),
    });
  });

  it('may come in any pieces', () => {
    const text = get('X: y');
    for (let length = 0; length < text.length; length++) expect(ruleOf(text.slice(0, length))).toBe('incomplete');
    expect(ruleOf(text)).toBe('head');
  });

  it.each([
    [
      'GET http://A.test:81/x?y HTTP/1.1\r\nHost: a.test:81\r\n\r\n',
      { form: 'absolute', scheme: 'http', path: '/x?y', authority: { hostText: 'A.test', port: 81 } },
    ],
    [
      'GET http://a.test?y HTTP/1.1\r\nHost: a.test\r\n\r\n',
      { form: 'absolute', path: '/?y', authority: { port: undefined } },
    ],
    [
      'CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n',
      { form: 'authority', authority: { port: 443, host: { text: 'a.test' } } },
    ],
    [
      'CONNECT [2001:DB8::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n',
      { form: 'authority', authority: { host: { text: '2001:db8::1' } } },
    ],
    ['OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n', { form: 'asterisk' }],
    ['GET /%00 HTTP/1.0\r\n\r\n', { form: 'origin', path: '/%00' }],
  ])('%j has its target', (text, target) => expect(head(text).target).toMatchObject(target));

  it('says what is for this hop, and how the connection goes on', () => {
    const read = head(get('Connection: X-Own, Upgrade', 'Upgrade: WebSocket', 'Expect: 100-Continue'));
    expect([...read.hopByHop]).toEqual(expect.arrayContaining(['x-own', 'upgrade', 'proxy-authorization']));
    expect(read).toMatchObject({ upgrade: ['websocket'], expectsContinue: true, keepAlive: true });
    expect(head(get('Connection: close')).keepAlive).toBe(false);
    expect(head(get('Upgrade: h2c')).upgrade).toEqual([]);
    expect(head('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n').keepAlive).toBe(true);
    expect(head('GET / HTTP/1.0\r\n\r\n').keepAlive).toBe(false);
  });

  it.each([
    ['bad-framing', get('Content-Length: 1', 'Transfer-Encoding: chunked')],
    ['bad-framing', get('Transfer-Encoding: chunked', 'Content-Length: 1')],
    ['bad-framing', get('Content-Length: 1', 'Content-Length: 1')],
    ['bad-framing', get('Content-Length: 1', 'Content-Length: 2')],
    ...['1, 1', '+1', '-1', '0x1', '1_0', '01', '', '1 1', '1e3', '9'.repeat(16)].map(
      (value) => ['bad-framing', get(`Content-Length: ${value}`)] as const,
    ),
    ...[
      'identity',
      'gzip, chunked',
      'chunked, gzip',
      'chunked, chunked',
      'xchunked',
      '"chunked"',
      'chunked;x',
      '',
      ',chunked',
      'chunked,',
    ].map((value) => ['bad-framing', get(`Transfer-Encoding: ${value}`)] as const),
    ['bad-framing', get('Transfer-Encoding: chunked', 'Transfer-Encoding: chunked')],
    ['bad-framing', 'POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['bad-framing', 'CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n'],
    ['bad-request', get('Transfer-Encoding : chunked')],
    ['bad-request', get('Transfer-Encoding\t: chunked')],
    ['bad-request', get(' Transfer-Encoding: chunked')],
    ['bad-request', get('X: y', ' folded')],
    ['bad-request', get('X: y', '\tfolded')],
    ['bad-request', get('X: a\0b')],
    ['bad-request', get('X: a\x7fb')],
    ['bad-request', get('X: a\rb')],
    ['bad-request', get('X: a\nY: b')],
    ['bad-request', get('no colon')],
    ['bad-request', get(': no name')],
    ['bad-request', get('X(: y')],
    ['bad-request', get('Host: b.test')],
    ['bad-request', 'GET / HTTP/1.1\r\n\r\n'],
    ['bad-request', 'GET / HTTP/1.1\nHost: a\n\n'],
    // Known before the head has ended.
    ['bad-request', 'GET / HTTP/1.1\r\nHost: a\r\nX: a\rb'],
    ['bad-request', 'GET / HTTP/1.1\r\nHost: a\r\nX: a\nb'],
    ['bad-request', 'GET / HTTP/1.1\r\nHost: a\r\n\n'],
    ['bad-request', '\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET  / HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET / HTTP/1.1 \r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET /\x0b HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET a.test/ HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET * HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET ftp://a.test/ HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET / HTTP/1.2\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET / http/1.1\r\nHost: a\r\n\r\n'],
    ['bad-request', 'GET /\r\n\r\n'],
    ['bad-request', `${'A'.repeat(33)} / HTTP/1.1\r\nHost: a\r\n\r\n`],
    ['bad-request', '\x16\x03\x01'],
    ['bad-request', get('Connection: Host')],
    ['bad-request', get('Connection: close, content-length')],
    ['bad-request', get('Expect: something')],
    ['bad-host', 'GET http://user@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['bad-host', 'CONNECT a.test%00.b:443 HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['bad-host', 'CONNECT a.test@b.test:443 HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['legacy-address', 'CONNECT 2130706433:80 HTTP/1.1\r\nHost: a\r\n\r\n'],
    ...[
      'a.test',
      'a.test:',
      'a.test:0',
      'a.test:65536',
      'a.test:+80',
      'a.test:80:80',
      '::1:443',
      '[::1]443',
      'a.test:443/',
    ].map((target) => ['bad-authority', `CONNECT ${target} HTTP/1.1\r\nHost: a\r\n\r\n`] as const),
    ['http2', 'PRI * HTTP/2.0\r\n'],
    ['http2', 'GET / HTTP/2.0\r\nHost: a\r\n\r\n'],
    ['head-too-large', get(...Array.from({ length: 200 }, (_, i) => `X${i}: y`))],
    ['head-too-large', get(`X: ${'y'.repeat(65_536)}`)],
    ['head-too-large', `GET /${'a'.repeat(16_384)}`],
    ['head-too-large', 'A'.repeat(20_000)],
  ] as const)('is refused by %s: %j', (rule, text) => expect(ruleOf(text)).toBe(rule));
});

describe('a chunked body', () => {
  function read(text: string, size: number) {
    const body = new ChunkedBody();
    const data: Buffer[] = [];
    for (let at = 0; at < text.length; at += size) {
      const step = body.push(bytes(text.slice(at, at + size)));
      if (step.type === 'refused') return step.rule;
      data.push(...step.data.map((piece) => Buffer.from(piece)));
      if (step.done)
        return {
          data: Buffer.concat(data).toString('latin1'),
          rest: text.slice(at + step.consumed),
          trailers: step.trailers,
        };
    }
    return 'incomplete';
  }

  it.each([
    ['0\r\n\r\nGET', { data: '', rest: 'GET', trailers: [] }],
    [
      '4\r\nabcd\r\n0A;x="y"\r\n0123456789\r\n000\r\nX-T: v\r\n\r\n',
      { data: 'abcd0123456789', rest: '', trailers: [['x-t', 'v']] },
    ],
    ['2\r\n\r\n\r\n0\r\n\r\n', { data: '\r\n', rest: '', trailers: [] }],
    ['4\r\nabc', 'incomplete'],
    ...[
      '\r\n',
      'x\r\n',
      '-1\r\n',
      '+1\r\n',
      ' 1\r\n',
      '1 \r\nx\r\n',
      '0x1\r\n',
      '1\nx\n0\n\n',
      '1\rx',
      '1,2\r\n',
      '1;\0\r\n',
      '1;a\nb\r\n',
    ].map((text) => [text, 'bad-framing'] as const),
    ...[
      '1\r\nab\r\n',
      '1\r\na\n0\r\n\r\n',
      '1\r\na0\r\n\r\n',
      'fffffffffffffff\r\n',
      `1;${'x'.repeat(300)}\r\n`,
      '0'.repeat(300),
    ].map((text) => [text, 'bad-framing'] as const),
    ...[
      '0\r\nContent-Length: 3\r\n\r\n',
      '0\r\nTransfer-Encoding: x\r\n\r\n',
      '0\r\nHost: x\r\n\r\n',
      `0\r\nX: ${'y'.repeat(9000)}`,
      `0\r\n${`X: ${'y'.repeat(95)}\r\n`.repeat(90)}\r\n`,
    ].map((text) => [text, 'bad-framing'] as const),
    ['0\r\n folded\r\n\r\n', 'bad-request'],
  ] as const)('%j', (text, expected) => {
    for (const size of [1, 2, 3, 7, text.length]) {
      const result = read(text, size);
      expect(
        typeof result === 'string'
          ? result
          : {
              ...result,
              rest:
                expected === 'incomplete'
                  ? ''
                  : text.slice(text.length - ((expected as { rest: string }).rest ?? '').length),
            },
      ).toEqual(expected);
    }
  });
});

describe('heads and bodies that are taken', () => {
  const seen: { method: string; url: string; headers: string[]; body: string }[] = [];
  const server = createServer((request: IncomingMessage, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      seen.push({
        method: request.method ?? '',
        url: request.url ?? '',
        headers: request.rawHeaders,
        body: Buffer.concat(parts).toString('latin1'),
      });
      response.end();
    });
  });
  beforeAll(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
  afterAll(() => new Promise((resolve) => server.close(resolve)));

  /** What Node's own server makes of the bytes: the requests it saw until it answered or closed. */
  async function nodeReads(text: string): Promise<typeof seen> {
    seen.length = 0;
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    const { promise, resolve } = Promise.withResolvers<void>();
    socket
      .on('data', () => undefined)
      .on('close', () => resolve())
      .on('error', () => undefined);
    socket.end(text, 'latin1');
    await promise;
    return [...seen];
  }

  const line = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom('X: y', 'x:z', 'Accept: */*', 'X-Empty:', 'A:  b ') },
    fc.constantFrom(
      'Content-Length: 3',
      'Content-Length: 0',
      'Transfer-Encoding: chunked',
      'Content-Length: 3, 3',
      ' x',
      'X : y',
      'Transfer-Encoding: chunked, identity',
      'content-length:\t3',
    ),
  );
  const body = fc.constantFrom('', 'abc', '3\r\nabc\r\n0\r\n\r\n', '0\r\n\r\n', '3;x\r\nabc\r\n0\r\nT: v\r\n\r\n');

  it('are the same to another server', async () => {
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('GET', 'POST', 'PUT'),
        fc.array(line, { maxLength: 4 }),
        body,
        async (method, lines, sent) => {
          const text = [`${method} /p?q HTTP/1.1`, 'Host: a.test', 'Connection: close', ...lines, '', sent].join(
            '\r\n',
          );
          const own = parseRequestHead(bytes(text));
          if (own.type !== 'head') return;
          const rest = text.slice(own.headBytes);
          let ownBody = '';
          if (own.body.type === 'length')
            ownBody = rest.length < own.body.bytes ? 'incomplete' : rest.slice(0, own.body.bytes);
          if (own.body.type === 'chunked') {
            const step = new ChunkedBody().push(bytes(rest));
            ownBody =
              step.type === 'step' && step.done
                ? step.data.map((piece) => Buffer.from(piece).toString('latin1')).join('')
                : 'incomplete';
          }
          const [node] = await nodeReads(text);
          if (ownBody === 'incomplete') {
            expect(node, text).toBeUndefined();
            return;
          }
          taken++;
          expect(node?.body, text).toBe(ownBody);
          expect([node?.method, node?.url]).toEqual([method, '/p?q']);
          expect(node?.headers.map((item, i) => (i % 2 === 0 ? item.toLowerCase() : item))).toEqual(own.headers.flat());
        },
      ),
      { numRuns: 300 },
    );
    expect(taken).toBeGreaterThan(50);
  });
});
