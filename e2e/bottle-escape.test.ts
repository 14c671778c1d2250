import { readFile } from 'node:fs/promises';

import { beforeAll, describe, expect, test } from 'vitest';

import type { Attempt } from './support/bottle/escape-case.ts';
import { ESCAPE_BACKENDS } from './support/bottle/escape-backends.ts';
import { escapeStage } from './support/bottle/escape-stage.ts';
import type { Escape } from './support/bottle/escape.ts';
import {
  ABSTRACT_SOCKET,
  ALLOWED,
  FORBIDDEN,
  FORBIDDEN_PORTS,
  FORBIDDEN_V6,
  GATEWAY,
  HOST_PORT,
  LOOPBACK_PORT,
  METADATA,
  PRIVATE,
  PUBLIC_RESOLVER,
} from './support/bottle/internet.ts';

const get = (host: string, ...more: readonly string[]) =>
  [`GET / HTTP/1.1`, `Host: ${host}`, ...more, '', ''].join('\r\n');
const connect = (target: string, more: Partial<Attempt> = {}): Attempt => ({ do: 'connect', target, ...more });
const tcp = (address: string, port: number, send = get('allowed.test')): Attempt => ({
  do: 'tcp',
  address,
  port,
  send,
});
const direct = (url: string): Attempt => ({ do: 'get', url, proxied: false });
const proxied = (url: string): Attempt => ({ do: 'get', url });

/**
 * The checks E1 to E3, E5, E12 to E16, E22 and E30 that an agent's sandbox must pass, from within a bottle, as its user and as its root. Every attempt must be refused
 * within a second and visibly, be in the audit by a rule and without the secret, and bring nothing to a listener that counts; and what is allowed must
 * work in the same bottle. Its groups are [backend:native] and [backend:docker].
 */
describe.each(ESCAPE_BACKENDS)('[backend:%s] a bottle keeps in', (backend, usable) => {
  describe.skipIf(!usable)('what is not allowed', () => {
    const stage = escapeStage(backend);
    const { canary } = stage;
    let escape: Escape;
    let other: Escape;
    beforeAll(async () => {
      escape = await stage.open('escape');
      other = await stage.open('escape');
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
        ],
        ['no-route', 'unknown-address', 'no-server-name'],
      );
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

    test('E14: services of the host', async () => {
      await escape.refuses(
        [
          tcp('127.0.0.1', LOOPBACK_PORT),
          tcp('127.0.0.1', HOST_PORT),
          tcp(GATEWAY, HOST_PORT),
          tcp(ALLOWED, HOST_PORT),
          tcp('::1', HOST_PORT),
          { do: 'udp', address: GATEWAY, port: HOST_PORT, send: canary },
        ],
        [],
        ['closed-port'],
      );
      await escape.refuses(
        [
          connect(`${GATEWAY}:${HOST_PORT}`),
          connect(`host.docker.internal:443`),
          connect(`${PRIVATE}:443`),
          connect('private.test:80'),
        ],
        ['no-route', 'private-address'],
      );
      const sockets = [
        '/run/docker.sock',
        '/var/run/docker.sock',
        '/run/dbus/system_bus_socket',
        '/run/systemd/private',
        '/tmp/.X11-unix/X0',
        '/run/containerd/containerd.sock',
      ];
      await escape.refuses(
        [
          ...sockets.map((path) => ({ do: 'unix', path })),
          { do: 'unix', path: ABSTRACT_SOCKET, abstract: true },
          { do: 'unix', path: '/tmp/.X11-unix/X0', abstract: true },
        ],
        [],
        [],
      );
    });

    test('E15: another bottle', async () => {
      expect(await other.attack([{ do: 'serve', port: 5555, name: 'decant-escape-other' }])).toMatchObject([
        { left: true },
      ]);
      expect((await other.attack([{ do: 'tcp', address: '127.0.0.1', port: 5555 }]))[0]?.received).toBe('REACHED');
      await escape.refuses(
        [
          tcp('127.0.0.1', 5555, ''),
          { do: 'unix', path: 'decant-escape-other', abstract: true },
          { do: 'read', path: other.opened.state },
        ],
        [],
        [],
      );
      const [processes] = await escape.attack([{ do: 'processes' }]);
      expect(processes?.['count']).toBeLessThan(8);
      for (const pid of other.opened.processIds)
        await escape.refuses(
          [
            { do: 'read', path: `/proc/${pid}/environ` },
            { do: 'kill', process: pid, number: 15 },
          ],
          [],
          [],
        );
      await other.works([proxied('https://allowed.test/')]);
    });

    test('E16: secrets of the operator', async () => {
      // The agent's own token holds the canary: in its environment, and nowhere else.
      for (const user of ['root', 'agent']) {
        const [found] = await escape.attack([{ do: 'find', needles: [canary] }], user);
        expect(found?.['looked']).toBeGreaterThan(500);
        const outside = ((found?.['found'] ?? []) as string[]).filter(
          (path) => !/^\/proc\/(?:\d+|self|thread-self)\/(?:task\/\d+\/)?environ$/.test(path),
        );
        expect(outside).toEqual([]);
      }
      await escape.refuses(
        [
          { do: 'read', path: '/proc/1/root/etc/shadow' },
          { do: 'read', path: '/proc/kcore' },
          { do: 'read', path: '/etc/shadow' },
        ],
        [],
        [],
      );
      for (const pid of escape.opened.processIds) {
        for (const file of ['cmdline', 'environ'])
          expect(await readFile(`/proc/${pid}/${file}`, 'latin1'), `${file} of ${pid}`).not.toContain(canary);
      }
    });

    test('E22: the authority of the bottle', async () => {
      for (const user of ['root', 'agent']) {
        const [keys] = await escape.attack(
          [
            {
              do: 'find',
              needles: ['BEGIN PRIVATE KEY', 'BEGIN EC PRIVATE KEY'],
              roots: ['/etc', '/run', '/tmp', '/home', '/root', '/var'],
            },
          ],
          user,
        );
        expect(keys?.['found']).toEqual([]);
      }
      const [own, others] = await Promise.all(
        [escape, other].map(
          async (one) => (await one.attack([{ do: 'read', path: '/etc/decant/ca.pem' }]))[0]?.received,
        ),
      );
      expect(own).toContain('BEGIN CERTIFICATE');
      expect(others).toContain('BEGIN CERTIFICATE');
      expect(own).not.toBe(others);
      // One bottle does not believe another one's authority.
      await other.attack([{ do: 'write', path: '/tmp/other.pem', data: own ?? '' }]);
      const [result] = await other.attack([proxied('https://allowed.test/')], 'agent', {
        SSL_CERT_FILE: '/tmp/other.pem',
      });
      expect(result?.detail).toContain('CERTIFICATE_VERIFY_FAILED');
    });

    test('E30: nothing from within reaches the sidecar', async () => {
      const env = {
        NODE_OPTIONS: '--require=/tmp/own.js',
        SSL_CERT_FILE: '/nowhere',
        NODE_EXTRA_CA_CERTS: '/nowhere',
        HTTPS_PROXY: 'http://evil.test',
      };
      await escape.attack(
        [{ do: 'write', path: '/tmp/own.js', data: `require('fs').writeFileSync('/tmp/owned','')` }],
        'root',
        env,
      );
      for (const pid of escape.opened.processIds) {
        const environ = await readFile(`/proc/${pid}/environ`, 'latin1');
        expect(environ).not.toMatch(/NODE_OPTIONS=-|own\.js|nowhere|evil/);
      }
      await escape.works([proxied('https://allowed.test/')]);
    });

    test('in all of this nothing reached a listener that counts', async () => {
      await escape.nothingCameOut();
      const { forbidden } = await stage.world.sightings();
      expect(Object.keys(forbidden).length).toBeGreaterThan(FORBIDDEN_PORTS.length * 8);
    });
  });
});
