import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { Internet, route } from '../testing/internet.ts';

const usable = process.platform === 'linux' && process.getuid?.() === 0;
const ROUTES = [
  route('api', 'api.example.com', { ports: [80, 8081] }),
  route('greeting', 'api.example.com', { ports: [2222], protocol: 'tcp' }),
];
const NEVER = 3_600_000;

describe.skipIf(!usable)('[backend:network-namespace] what the fence bounds', () => {
  let internet: Internet;
  beforeAll(async () => {
    internet = await Internet.open();
  });
  afterAll(async () => {
    await internet[Symbol.asyncDispose]();
  });
  const proxied = async (text: string) => (await internet.raw('127.0.0.1', 9099, text)).toString('latin1');
  const get = (path: string, close = '') =>
    `GET http://api.example.com${path} HTTP/1.1\r\nHost: api.example.com\r\n${close}\r\n`;

  test('a server that does not answer, requests on one connection, and a tunnel at rest', async () => {
    const limits = { responseTimeMs: 300, requestsPerConnection: 2, idleTimeMs: 300, keepAliveMs: NEVER };
    await internet.openFence(ROUTES, { limits });
    const hung =
      'GET http://api.example.com:8081/hang HTTP/1.1\r\nHost: api.example.com:8081\r\nConnection: close\r\n\r\n';
    expect(await proxied(hung)).toMatch(/^HTTP\/1\.1 504 .*\ndecant-rule: upstream-timeout/s);
    // Time to answer is what the server at rest had too little of; a busy machine may need it as well.
    const several = async () =>
      ((await proxied(get('/a') + get('/b') + get('/c'))).match(/"url":"\/[abc]"/g) ?? []).join();
    await expect.poll(several).toBe('"url":"/a","url":"/b"');
    const rested = async () => (await internet.raw('203.0.113.10', 2222, 'x')).toString('latin1');
    await expect.poll(rested).toBe('220 hello\r\nx');
  });

  test('the time of a connection', async () => {
    await internet.openFence(ROUTES, { limits: { totalTimeMs: 300, headTimeMs: NEVER, keepAliveMs: NEVER } });
    expect(await proxied('')).toBe('');
  });

  test('what waits to be recorded: while it is too much nothing passes, and names are not looked up', async () => {
    await internet.openFence(ROUTES, { limits: { auditBacklog: 0 } });
    const before = (await internet.seen()).asked.length;
    const answer = await proxied(get('/unrecorded', 'Connection: close\r\n'));
    expect(answer).toMatch(/^HTTP\/1\.1 503 .*\ndecant-rule: audit-backlog/s);
    const program = [
      'import socket',
      "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(30); s.connect(('127.0.0.1',53))",
      "s.send(b'\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0\\x03api\\x07example\\x03com\\0\\0\\x01\\0\\x01')",
      'print(s.recv(512)[3]&15)',
    ].join('\n');
    const { stdout } = await internet.inside(['python3', '-c', program]);
    expect(stdout.toString('utf8')).toBe('2\n');
    const { asked, events } = await internet.seen();
    expect(asked).toHaveLength(before);
    expect(events.filter(({ decision }) => decision === 'allow')).toEqual([]);
  });
});
