import { readFile } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { Internet, route } from '../testing/internet.ts';

const usable = process.platform === 'linux' && process.getuid?.() === 0;

describe.skipIf(!usable)('[backend:network-namespace] what the fence refuses', () => {
  let internet: Internet;
  beforeAll(async () => {
    internet = await Internet.open();
    await internet.openFence(
      [route('api', 'api.example.com', { ports: [443, 80, 8080] }), route('mixed', 'mixed.example.com')],
      {
        limits: { connections: 40, headTimeMs: 1500, keepAliveMs: 1500 },
      },
    );
  });
  afterAll(async () => {
    await internet[Symbol.asyncDispose]();
  });
  const proxied = async (text: string) => (await internet.raw('127.0.0.1', 9099, text)).toString('latin1');
  const caught = async (text: string, port = 80) => (await internet.raw('203.0.113.10', port, text)).toString('latin1');

  test('a head that can be read in two ways is answered 400 and the connection closed', async () => {
    const bodies = [
      'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n',
      'Content-Length: 5\r\nContent-Length: 5\r\n',
      'Content-Length: 5\r\nContent-Length: 6\r\n',
      'Transfer-Encoding: xchunked\r\n',
      'Transfer-Encoding: chunked, identity\r\n',
      'Transfer-Encoding : chunked\r\n',
      'Host: other.example.com\r\n',
      'X: a\r\n b\r\n',
      'X: a\nY: b\r\n',
      'Connection: host\r\n',
    ];
    for (const body of bodies) {
      const text = `POST http://api.example.com/smuggled HTTP/1.1\r\nHost: api.example.com\r\n${body}\r\n0\r\n\r\nGET http://api.example.com/second HTTP/1.1\r\nHost: api.example.com\r\n\r\n`;
      const answer = await proxied(text);
      expect(answer, body).toMatch(/^HTTP\/1\.1 400 /);
      expect(answer.match(/HTTP\/1\.1/g), body).toHaveLength(1);
    }
    const { events } = await internet.seen();
    expect(events.filter(({ decision, path }) => decision === 'allow' && path === '/smuggled')).toEqual([]);
  });

  test('a body that is malformed is answered 400, and recorded as refused', async () => {
    const before = (await internet.stats()).deniedRequests;
    for (const chunk of ['-1\r\n', '0x5\r\nhello\r\n0\r\n\r\n', '5;x\nhello\r\n0\r\n\r\n']) {
      const text = `POST http://api.example.com/chunks HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`;
      expect(await proxied(text)).toMatch(/^HTTP\/1\.1 400 .*\ndecant-rule: bad-framing/s);
    }
    const ends = async () =>
      (await internet.seen()).events.flatMap(({ type, decision, rule, path }) =>
        type === 'end' && path === '/chunks' ? [`${decision} ${rule}`] : [],
      );
    await expect.poll(ends).toEqual(['deny bad-framing', 'deny bad-framing', 'deny bad-framing']);
    expect((await internet.stats()).deniedRequests - before).toBe(3);
  });

  test('a second request in the same bytes is judged on its own', async () => {
    const ask = (host: string, close: string) => `GET http://${host}/p HTTP/1.1\r\nHost: ${host}\r\n${close}\r\n`;
    const answer = await proxied(
      ask('api.example.com', '') + ask('forbidden.example.com', '') + ask('api.example.com', 'Connection: close\r\n'),
    );
    expect(answer.match(/HTTP\/1\.1 [0-9]+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 403', 'HTTP/1.1 200']);
  });

  test('names that do not agree are misdirected; the rule is named', async () => {
    expect(await caught('GET / HTTP/1.1\r\nHost: forbidden.example.com\r\nConnection: close\r\n\r\n')).toContain(
      'decant-rule: no-route',
    );
    expect(
      await proxied('GET http://api.example.com/ HTTP/1.1\r\nHost: other.example.com\r\nConnection: close\r\n\r\n'),
    ).toMatch(/^HTTP\/1\.1 421 /);
    expect(
      await proxied('CONNECT api.example.com:443 HTTP/1.1\r\nHost: other.example.com:443\r\nConnection: close\r\n\r\n'),
    ).toMatch(/^HTTP\/1\.1 421 /);
    expect(await proxied('GET https://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n')).toContain(
      '(plain-http)',
    );
    expect(await proxied('GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    const inside =
      'CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\nGET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n';
    expect(await proxied(inside)).toMatch(/^HTTP\/1\.1 200 .*HTTP\/1\.1 400 .*\(plain-http\)/s);
    const another =
      'CONNECT api.example.com:80 HTTP/1.1\r\nHost: api.example.com:80\r\n\r\nGET http://mixed.example.com/ HTTP/1.1\r\nHost: mixed.example.com\r\nConnection: close\r\n\r\n';
    expect(await proxied(another)).toMatch(/^HTTP\/1\.1 200 .*HTTP\/1\.1 421 .*\(name-mismatch\)/s);
    const curl = await internet.inside(
      [
        'curl',
        '-sk',
        '--connect-to',
        'forbidden.example.com:443:api.example.com:443',
        'https://forbidden.example.com/',
      ],
      { transparent: true, okCodes: [0] },
    );
    expect(curl.stdout.toString('utf8')).toContain('(no-route)');
  });

  test('addresses, names of this machine and metadata are refused whatever their form', async () => {
    for (const host of [
      '127.0.0.1',
      '169.254.169.254',
      '[::1]',
      '[::ffff:127.0.0.1]',
      '10.0.0.1',
      '2130706433',
      '0x7f.1',
      'localhost',
      'metadata.google.internal',
      'a%00.example.com',
      'mixed.example.com',
    ]) {
      expect(
        await proxied(`CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}:443\r\nConnection: close\r\n\r\n`),
        host,
      ).toMatch(/^HTTP\/1\.1 4(?:03|00) .*\ndecant-rule: /s);
    }
    expect(
      (await internet.raw('169.254.169.254', 80, 'GET /latest/meta-data/ HTTP/1.0\r\n\r\n')).toString('latin1'),
    ).toContain('(metadata)');
    expect((await internet.raw('2001:db8::20', 80, 'GET / HTTP/1.0\r\n\r\n')).toString('latin1')).toContain(
      '403 Forbidden',
    );
  });

  test('HTTP/2 is refused in words of HTTP/2, and by ALPN', async () => {
    const answer = await internet.raw('203.0.113.10', 80, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    expect(answer.subarray(0, 9)).toEqual(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
    expect(answer.readUInt32BE(9 + 13)).toBe(0xd);
    const alpn = [
      'openssl',
      's_client',
      '-connect',
      'api.example.com:443',
      '-servername',
      'api.example.com',
      '-alpn',
      'h2',
      '-brief',
    ];
    const { stderr } = await internet.inside(alpn, { transparent: true, okCodes: [1] });
    expect(stderr.toString('utf8')).toContain('alert access denied');
    expect(await internet.event(({ rule, type }) => rule === 'http2' && type === 'connection')).toMatchObject({
      host: 'api.example.com',
    });
  });

  test('TLS without a name, and bytes that are no TLS, end with an alert', async () => {
    // A client that is too slow to say that it speaks TLS is reset: it is asked again.
    const bare = async () => {
      const { stderr } = await internet.inside(
        ['openssl', 's_client', '-connect', '203.0.113.20:443', '-noservername', '-brief'],
        { transparent: true, okCodes: [0, 1], input: 'GET / HTTP/1.0\r\n\r\n' },
      );
      return stderr.toString('utf8');
    };
    await expect.poll(bare).toContain('Verification');
    const broken = await internet.raw(
      '203.0.113.10',
      443,
      Buffer.concat([Buffer.from([22, 3, 1, 0, 6, 1, 0, 0, 2]), Buffer.from([3, 3])]),
    );
    expect([...broken]).toEqual([21, 3, 3, 0, 2, 2, 49]);
    expect((await internet.raw('203.0.113.10', 443, 'SSH-2.0-x\r\n')).toString('latin1')).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('a name that no route allows is not looked up, over UDP, TCP and IPv6', async () => {
    const program = [
      'import socket,struct',
      "q=b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00'+b'\\x09forbidden\\x07example\\x03com\\x00'+b'\\x00\\x01\\x00\\x01'",
      "for fam,at in ((socket.AF_INET,'8.8.8.8'),(socket.AF_INET6,'::1')):",
      ' s=socket.socket(fam,socket.SOCK_DGRAM); s.settimeout(20); s.connect((at,53)); s.send(q); print(s.recv(512)[3]&15)',
      "s=socket.create_connection(('1.1.1.1',53),20); s.sendall(struct.pack('>H',len(q))+q); print(s.recv(512)[5]&15)",
      "s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); s.settimeout(20); s.connect(('2001:db8::8',53)); s.send(q)",
      'try: s.recv(512)',
      "except ConnectionRefusedError: print('refused')",
    ].join('\n');
    const { stdout } = await internet.inside(['python3', '-c', program], { transparent: true });
    expect(stdout.toString('utf8')).toBe('3\n3\n3\nrefused\n');
    expect((await internet.seen()).asked).not.toContain('forbidden.example.com');
    expect(await internet.event(({ type, rule }) => type === 'dns' && rule === 'no-route')).toMatchObject({
      host: 'forbidden.example.com',
    });
  });

  test('ports that no route names are refused at once, counted and recorded', async () => {
    const program = [
      'import socket,time',
      't=time.time()',
      "for fam,at in ((socket.AF_INET,'203.0.113.20'),(socket.AF_INET6,'2001:db8::10')):",
      ' for port in (22,25,5432):',
      '  s=socket.socket(fam); s.settimeout(20)',
      "  try: s.connect((at,port)); print('open')",
      '  except ConnectionRefusedError: pass',
      "u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.settimeout(20); u.connect(('203.0.113.20',443)); u.send(b'quic')",
      "try: u.recv(9); print('open')",
      'except ConnectionRefusedError: pass',
      "print('fast' if time.time()-t<15 else 'slow')",
    ].join('\n');
    const before = await internet.stats();
    const { stdout } = await internet.inside(['python3', '-c', program], { transparent: true });
    expect(stdout.toString('utf8')).toBe('fast\n');
    const after = await internet.stats();
    expect(after.refusedConnections - before.refusedConnections).toBe(6);
    expect(after.refusedDatagrams - before.refusedDatagrams).toBeGreaterThanOrEqual(1);
    expect(await internet.event(({ type }) => type === 'namespace')).toMatchObject({
      decision: 'deny',
      rule: 'closed-port',
    });
    expect((await internet.seen()).forbidden).toEqual({ connections: 0, bytes: 0 });
  });

  test('what a client hides in headers and queries is in no answer and no event', async () => {
    const secret = 'c4n4ry-9f2e';
    const texts = [
      `GET http://forbidden.example.com/p?token=${secret} HTTP/1.1\r\nHost: forbidden.example.com\r\nAuthorization: Bearer ${secret}\r\n\r\n`,
      `GET http://api.example.com/p HTTP/1.1\r\nHost: api.example.com\r\nX-${secret}\x01: a\r\n\r\n`,
      `GET http://api.example.com/p?${secret} HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: ${secret}\r\n\r\n`,
    ];
    for (const text of texts) expect(await proxied(text)).not.toContain(secret);
    expect(JSON.stringify((await internet.seen()).events)).not.toContain(secret);
  });

  test('a head that trickles, and one that is too long, are cut off in time', async () => {
    const program = [
      'import socket,time',
      "s=socket.create_connection(('127.0.0.1',9099)); t=time.time()",
      "s.sendall(b'GET http://api.example.com/ HTTP/1.1\\r\\n')",
      'try:',
      ' while time.time()-t<60:',
      "  s.sendall(b'x'); time.sleep(0.1)",
      'except OSError: pass',
      "print('cut' if time.time()-t<50 else 'open')",
      "s=socket.create_connection(('127.0.0.1',9099)); s.settimeout(20)",
      "s.sendall(b'GET http://api.example.com/ HTTP/1.1\\r\\nX: '+b'y'*100000)",
      'print(s.recv(99)[9:12])',
    ].join('\n');
    const { stdout } = await internet.inside(['python3', '-c', program]);
    expect(stdout.toString('utf8')).toBe("cut\nb'431'\n");
  });

  test('a flood of connections, questions and nonsense leaves the fence working, small, and the log bounded', async () => {
    const program = [
      'import socket,os,threading',
      'keep=[]',
      'for i in range(400):',
      ' try:',
      "  s=socket.create_connection(('203.0.113.10',443),2); s.sendall(os.urandom(300)); keep.append(s)",
      ' except OSError: pass',
      'u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)',
      'for i in range(5000):',
      " n=os.urandom(8).hex().encode(); u.sendto(b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0'+bytes([len(n)])+n+b'\\4evil\\4test\\0\\0\\1\\0\\1',('9.9.9.9',53))",
      // All of them stay open until the last was taken or turned away: a fence that is held up would else find them gone.
      'keep[-1].settimeout(60)',
      'try: keep[-1].recv(1)',
      'except ConnectionResetError: pass',
    ].join('\n');
    const earlier = (await internet.seen()).events.length;
    const started = performance.now();
    await internet.inside(['python3', '-c', program], { timeoutMs: 120_000 });
    await expect
      .poll(
        async () =>
          (
            await proxied(
              'GET http://api.example.com/after HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n',
            )
          ).slice(0, 12),
        { timeout: 30_000 },
      )
      .toBe('HTTP/1.1 200');
    const stats = await internet.stats();
    expect(stats.droppedConnections).toBeGreaterThan(0);
    const denials = (await internet.seen()).events.filter(({ decision }) => decision === 'deny');
    expect(denials.length).toBeLessThan(earlier + 250 * ((performance.now() - started) / 1000 + 2));
    const status = await readFile(`/proc/${internet.fence.processId}/status`, 'utf8');
    expect(Number(/^VmHWM:\s+([0-9]+) kB$/m.exec(status)?.[1])).toBeLessThan(400 * 1024);
  });
});
