import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { endToEnd, parseResponseHead } from './response-head.ts';

const parse = (text: string, method = 'GET') => parseResponseHead(Buffer.from(text, 'latin1'), method);

describe('parseResponseHead', () => {
  test.each([
    ['HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n', { type: 'length', bytes: 5 }],
    ['HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n', { type: 'length', bytes: 5 }],
    ['HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\ncontent-length: 5\r\n\r\n', { type: 'chunked' }],
    ['HTTP/1.1 200\r\n\r\n', { type: 'until-close' }],
    ['HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n', { type: 'none' }],
    ['HTTP/1.1 100 Continue\r\n\r\n', { type: 'none' }],
  ])('where the body of %j ends', (text, body) => {
    expect(parse(text)).toMatchObject({ body });
  });

  test('an answer to HEAD has no body, and one of HTTP/1.0 does not keep the connection', () => {
    expect(parse('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n', 'HEAD')).toMatchObject({ body: { type: 'none' } });
    expect(parse('HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n')).toMatchObject({ keepAlive: false });
    expect(parse('HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: Close\r\n\r\n')).toMatchObject({
      keepAlive: false,
    });
  });

  test.each([
    'SSH-2.0-x\r\n\r\n',
    'HTTP/2 200\r\n\r\n',
    'HTTP/1.1 99 x\r\n\r\n',
    'HTTP/1.1 200 OK\r\nx : y\r\n\r\n',
    'HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n',
    'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n',
    'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n',
    'HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n',
  ])('%j is no response', (text) => {
    expect(typeof parse(text)).toBe('string');
  });

  test('any bytes give an answer, and a head in pieces is the same as in one', () => {
    const whole = 'HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 3\r\n\r\nabc';
    fc.assert(
      fc.property(fc.nat(whole.length), (cut) => {
        const head = parse(whole.slice(0, cut));
        return cut < whole.length - 3
          ? head === undefined
          : typeof head === 'object' && head.headBytes === whole.length - 3;
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void parseResponseHead(Buffer.from(bytes), 'GET')),
    );
  });

  test('what is for one hop, and what Connection names, is not passed on', () => {
    const head = parse(
      'HTTP/1.1 200 OK\r\nConnection: x-mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nAlt-Svc: h3=":443"\r\nX-Other: 2\r\n\r\n',
    );
    expect(typeof head === 'object' ? endToEnd(head.headers) : head).toEqual([['x-other', '2']]);
  });
});
