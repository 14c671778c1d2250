import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { beforeAll, describe, expect, inject, test } from 'vitest';

import { run } from '../packages/core/src/node/index.ts';
import { connect, proxied, tcp } from './support/bottle/attempts.ts';
import { ESCAPE_BACKENDS } from './support/bottle/escape-backends.ts';
import { escapeStage } from './support/bottle/escape-stage.ts';
import type { Escape } from './support/bottle/escape.ts';
import {
  ABSTRACT_SOCKET,
  ALLOWED,
  FORBIDDEN,
  FORBIDDEN_PORTS,
  GATEWAY,
  HOST_PORT,
  LOOPBACK_PORT,
  OPERATOR_SOCKET,
  PRIVATE,
} from './support/bottle/internet.ts';

/** A tool of the host that hangs is found; how quick it is says nothing. */
const TOOL = { timeoutMs: 120_000 };

/** The checks E14 to E16, E22 and E30: the host, other bottles and what belongs to them, from within a bottle as its user and as its root. See bottle-escape.test.ts. */
describe.each(ESCAPE_BACKENDS)('[backend:%s] a bottle keeps away from', (backend, usable) => {
  describe.skipIf(!usable)('what is not its own', () => {
    const stage = escapeStage(backend);
    const { canary } = stage;
    let escape: Escape;
    let other: Escape;
    beforeAll(async () => {
      escape = await stage.open('escape');
      other = await stage.open('escape');
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
      const { stdout } = await run('ps', ['-eo', 'args', '--no-headers'], TOOL);
      const shown = stdout
        .toString('utf8')
        .split('\n')
        .filter((line) => line.includes(canary));
      expect(shown.map((line) => line.slice(0, 12))).toEqual(['sh -c sleep ']);
      const kept = await run('grep', ['-rlI', canary, stage.directory], { ...TOOL, okCodes: [0, 1] });
      expect(kept.stdout.toString('utf8')).toBe('');
      if (backend === 'docker') {
        const env = { ...process.env, DOCKER_HOST: inject('dockerHost')! };
        const list = await run('docker', ['ps', '-aq', '--filter', 'label=dev.decant.bottle'], { ...TOOL, env });
        const ids = list.stdout.toString('utf8').split('\n').filter(Boolean);
        expect(ids.length).toBeGreaterThan(1);
        // Bottles of other tests may be gone by now.
        const told = await run('docker', ['inspect', ...ids], { ...TOOL, env, okCodes: [0, 1] });
        for (const { opened } of [escape, other]) expect(told.stdout.toString('utf8')).toContain(opened.slug);
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
