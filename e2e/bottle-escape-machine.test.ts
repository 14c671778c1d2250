import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import { beforeAll, describe, expect, test } from 'vitest';

import { PROMPT_MS, refusalOf, type Attempt, type Outcome } from './support/bottle/escape-case.ts';
import { ESCAPE_BACKENDS } from './support/bottle/escape-backends.ts';
import { attackImage, escapeStage } from './support/bottle/escape-stage.ts';
import type { Escape } from './support/bottle/escape.ts';
import { POLICY } from './support/bottle/policy.ts';

const CONTROL: Attempt = { do: 'get', url: 'https://allowed.test/control' };
const MIB = 2 ** 20;
/** System calls of x86-64. */
const CALLS = {
  ptrace: 101,
  mount: 165,
  keyctl: 250,
  unshare: 272,
  perf: 298,
  setns: 308,
  bpf: 321,
  userfaultfd: 323,
  ioUring: 425,
  moveMount: 429,
  fsopen: 430,
};
/** A container takes longer than a sandbox. */
const TOGETHER = { native: 16, docker: 6 } as const;
const NEW_USER = 0x1000_0000;
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;

/** The checks E6, E25 to E28 and E32 to E34: what a bottle is made of, tried from within; as [backend:native] and as [backend:docker]. */
describe.each(ESCAPE_BACKENDS)('[backend:%s] a bottle holds', (backend, usable) => {
  describe.skipIf(!usable)('what runs in it', () => {
    const stage = escapeStage(backend);
    const { canary } = stage;
    const at = (name: string) => join(stage.folder, name);
    let escape: Escape;
    let other: Escape;
    let shared: string;
    let slow: Promise<readonly Outcome[]>;

    beforeAll(async () => {
      shared = at('shared');
      mkdirSync(shared);
      writeFileSync(join(shared, 'open.txt'), 'open');
      // The folder is a person's, and one file in it is not.
      writeFileSync(join(shared, 'secret.txt'), canary, { mode: 0o600 });
      chmodSync(shared, 0o755);
      for (const path of [shared, join(shared, 'open.txt')]) chownSync(path, 12_345, 12_345);
      escape = await stage.open('machine', {
        mounts: [
          { type: 'read-only', source: shared, target: '/mnt/shared' },
          { type: 'overlay', source: shared, target: '/mnt/over' },
        ],
      });
      other = await stage.open('neighbour');
      // A request that never ends, beside all that follows.
      slow = other.attack([{ do: 'slow', seconds: 60 }]);
      slow.catch(() => undefined);
    });
    /** Tries as both users; each has to fail by a refusal of the kernel. */
    async function refuses(attempts: readonly Attempt[]): Promise<void> {
      for (const user of ['agent', 'root']) {
        const outcomes = await escape.attack([...attempts, CONTROL], user);
        for (const [i, outcome] of outcomes.slice(0, -1).entries()) {
          const what = `${JSON.stringify(attempts[i])} as ${user} came to ${JSON.stringify(outcome)}`;
          expect(refusalOf(outcome) ?? 'allowed', what).toMatch(
            /^E(?:PERM|ACCES|NOSYS|ROFS|NOENT|SRCH|AFNOSUPPORT|PROTONOSUPPORT|SOCKTNOSUPPORT|INVAL|BADF|IO|FAULT|OPNOTSUPP|NODEV)$/,
          );
          expect(outcome.ms, what).toBeLessThan(PROMPT_MS);
        }
        expect(outcomes.at(-1)).toMatchObject({ status: 200 });
      }
      await escape.nothingCameOut();
    }

    test.skipIf(process.arch !== 'x64')('E6: other ways to the kernel', async () => {
      await refuses([
        { do: 'new_socket', family: 17, kind: 3, protocol: 768 },
        { do: 'new_socket', family: 2, kind: 3, protocol: 1 },
        { do: 'new_socket', family: 2, kind: 3, protocol: 255 },
        { do: 'new_socket', family: 10, kind: 3, protocol: 58 },
        { do: 'new_socket', family: 40, kind: 1 },
        // Echo requests, of whatever size.
        { do: 'new_socket', family: 2, kind: 2, protocol: 1 },
        { do: 'new_socket', family: 10, kind: 2, protocol: 58 },
        { do: 'syscall', number: CALLS.ioUring, arguments: [8, 0] },
        { do: 'syscall', number: CALLS.bpf, arguments: [0, 0, 0] },
        { do: 'syscall', number: CALLS.keyctl, arguments: [0, -3, 0] },
        { do: 'syscall', number: CALLS.perf, arguments: [0, 0, -1, -1, 0] },
        { do: 'syscall', number: CALLS.userfaultfd, arguments: [0] },
        { do: 'syscall', number: CALLS.unshare, arguments: [NEW_USER] },
        { do: 'syscall', number: CALLS.unshare, arguments: [0x4000_0000] },
        { do: 'syscall', number: CALLS.fsopen, arguments: ['tmpfs', 0] },
        { do: 'syscall', number: CALLS.mount, arguments: ['none', '/tmp', 'tmpfs', 0, ''] },
        { do: 'syscall', number: CALLS.ptrace, arguments: [16, 1, 0, 0] },
      ]);
      const tables = ['/proc/net/route', '/proc/net/ipv6_route', '/proc/net/fib_trie', '/proc/net/if_inet6'];
      const network = async () =>
        (await escape.attack(tables.map((path) => ({ do: 'read', path })))).map(({ received }) => received ?? '');
      const before = await network();
      expect(before.join('')).not.toBe('');
      for (const user of ['agent', 'root']) {
        const [routes] = await escape.attack([{ do: 'route' }], user);
        expect(routes?.['results'] ?? [routes?.error]).toEqual(expect.not.arrayContaining(['OK']));
      }
      expect(await network()).toEqual(before);
      await escape.works([CONTROL]);
    });

    test('E25: copies stay below the root', async () => {
      const marker = `escape-${canary}`;
      const source = at('in.txt');
      writeFileSync(source, 'from the host');
      await escape.attack([
        { do: 'make', kind: 'directory', path: '/home/agent/box' },
        { do: 'make', kind: 'link', path: '/home/agent/out', target: '/etc' },
        { do: 'make', kind: 'link', path: '/home/agent/far', target: '../../../../../../../../etc' },
        { do: 'make', kind: 'link', path: '/home/agent/file', target: `/etc/${marker}-file` },
      ]);
      for (const target of [
        `/home/agent/out/${marker}`,
        `/home/agent/far/${marker}-far`,
        '/home/agent/file',
        `/home/agent/../../../../../../etc/${marker}-up`,
      ]) {
        await stage.world.copyIn(escape.opened.slug, source, target).catch(() => undefined);
      }
      expect(readdirSync('/etc').filter((name) => name.includes(marker))).toEqual([]);
      await expect(stage.world.copyIn(escape.opened.slug, at('nothing'), '/home/agent/box/x')).rejects.toThrow();

      await escape.attack([
        { do: 'make', kind: 'directory', path: '/home/agent/swapped' },
        { do: 'swap', path: '/home/agent/swapped', target: '/etc', seconds: 5 },
      ]);
      for (let i = 0; i < 6; i++)
        await stage.world
          .copyIn(escape.opened.slug, source, `/home/agent/swapped/${marker}-${i}`)
          .catch(() => undefined);
      expect(readdirSync('/etc').filter((name) => name.includes(marker))).toEqual([]);
    });

    test('E25: what is copied out is files, and never another path', async () => {
      await escape.attack(
        [
          { do: 'make', kind: 'directory', path: '/home/agent/dir' },
          { do: 'make', kind: 'directory', path: '/home/agent/dir2' },
          { do: 'write', path: '/home/agent/dir/a', data: 'a' },
          { do: 'write', path: '/home/agent/dir2/b', data: 'b' },
          { do: 'make', kind: 'setuid', path: '/home/agent/dir/setuid' },
          { do: 'make', kind: 'directory', path: '/home/agent/pipes' },
          { do: 'make', kind: 'pipe', path: '/home/agent/pipes/p' },
          { do: 'make', kind: 'link', path: '/home/agent/shadow', target: '/etc/shadow' },
          { do: 'make', kind: 'hard link', path: '/home/agent/dir/hard', target: '/home/agent/dir/a' },
          { do: 'sparse', path: '/home/agent/dir/sparse', size: 10 * 1024 * MIB },
        ],
        'agent',
      );
      await stage.world.copyOut(escape.opened.slug, '/home/agent/dir', at('got'));
      expect(readdirSync(at('got')).toSorted()).toEqual(['a', 'hard', 'setuid', 'sparse']);
      const sparse = lstatSync(join(at('got'), 'sparse'));
      expect(sparse.size).toBe(10 * 1024 * MIB);
      expect(sparse.blocks * 512).toBeLessThan(MIB);
      expect(lstatSync(join(at('got'), 'setuid')).mode & 0o6000).toBe(0);
      await expect(stage.world.copyOut(escape.opened.slug, '/home/agent/dir2', at('got'))).rejects.toThrow();
      await expect(stage.world.copyOut(escape.opened.slug, '/home/agent/pipes', at('pipes'))).rejects.toThrow();
      await stage.world.copyOut(escape.opened.slug, '/home/agent/shadow', at('shadow')).catch(() => undefined);
      const own = readFileSync('/etc/shadow', 'utf8');
      if (existsSync(at('shadow')) && !lstatSync(at('shadow')).isSymbolicLink())
        expect(readFileSync(at('shadow'), 'utf8')).not.toBe(own);
    });

    test('E26: mounts are what the plan says', async () => {
      await refuses([
        { do: 'write', path: '/mnt/shared/new', data: 'x' },
        { do: 'write', path: '/mnt/shared/open.txt', data: 'x' },
        { do: 'read', path: '/proc/1/root/etc/shadow' },
        { do: 'write', path: '/proc/sys/kernel/core_pattern', data: '|/tmp/x' },
        { do: 'write', path: '/proc/sys/net/ipv4/ip_forward', data: '1' },
        { do: 'write', path: '/proc/sysrq-trigger', data: 'c' },
        { do: 'write', path: '/sys/kernel/uevent_helper', data: '/tmp/x' },
        { do: 'write', path: '/sys/fs/cgroup/release_agent', data: '/tmp/x' },
        { do: 'write', path: '/proc/pressure/memory', data: 'some 150000 2000000' },
        { do: 'make', kind: 'device', path: '/tmp/mem' },
        { do: 'read', path: '/dev/mem' },
        { do: 'read', path: '/dev/sda' },
        { do: 'read', path: '/dev/loop0' },
        ...(process.arch === 'x64'
          ? [{ do: 'syscall', number: CALLS.mount, arguments: ['none', '/mnt/shared', '', 0x1020, ''] }]
          : []),
      ]);
      const [readable, secret, written] = await escape.attack([
        { do: 'read', path: '/mnt/shared/open.txt' },
        { do: 'read', path: '/mnt/shared/secret.txt' },
        { do: 'write', path: '/mnt/over/new', data: 'x' },
      ]);
      expect(readable?.received).toBe('open');
      expect(secret?.received ?? '').not.toContain(canary);
      const [asRoot, mounts] = await escape.attack(
        [
          { do: 'read', path: '/mnt/shared/secret.txt' },
          { do: 'read', path: '/proc/self/mountinfo' },
        ],
        'root',
      );
      expect(asRoot?.error).toMatch(/^E(?:ACCES|PERM)$/);
      // Where an overlay keeps what is written is no place in the bottle. Of a folder that is mounted the kernel tells its name.
      expect(mounts?.received).toContain('/mnt/over');
      expect((mounts?.received ?? '').replaceAll(` ${shared} /mnt/shared `, '')).not.toContain(stage.folder);
      expect(written).toMatchObject({ written: 1 });
      expect(readdirSync(shared).toSorted()).toEqual(['open.txt', 'secret.txt']);
      expect(readFileSync(join(shared, 'open.txt'), 'utf8')).toBe('open');
    });

    test('E27: terminals, other processes, and those that stay behind', async () => {
      const { stdout } = await stage.world.exec({
        slug: escape.opened.slug,
        argv: [
          '/bin/sh',
          '-c',
          `echo '${JSON.stringify([TIOCSTI, TIOCLINUX, 0x1_0000_0000 + TIOCSTI, 0x1_0000_0000 + TIOCLINUX].map((request) => ({ do: 'terminal', request })))}' > /tmp/t; exec 3</tmp/t; /usr/bin/python3 -c "
import sys; sys.path.insert(0, '/attack'); import attack, json
print(json.dumps([attack.run(one) for one in json.load(open('/tmp/t'))]))"`,
        ],
        terminal: true,
      });
      const typed = JSON.parse(/\[\{.*\}\]/s.exec(stdout)?.[0] ?? '[]') as Outcome[];
      expect(typed).toHaveLength(4);
      for (const outcome of typed) expect(outcome.error, JSON.stringify(typed)).toMatch(/^E/);

      await refuses(
        [
          { do: 'kill', process: 1, number: 9 },
          ...escape.opened.processIds.map((process) => ({ do: 'kill', process, number: 9 })),
        ].filter(({ process }) => process !== 1),
      );
      for (const pid of escape.opened.processIds) expect(existsSync(`/proc/${pid}`)).toBe(true);
    });

    test('E28: names are words and nothing else', async () => {
      for (const env of [{ 'A=B': 'x' }, { 'A\n': 'x' }, { '': 'x' }, { A: 'x\0y' }]) {
        await expect(stage.world.exec({ slug: escape.opened.slug, argv: ['/bin/true'], env })).rejects.toThrow();
      }
      for (const argv of [['--help'], ['-x'], ['/bin/true\0'], ['']]) {
        const result = await stage.world
          .exec({ slug: escape.opened.slug, argv })
          .catch((error: unknown) => ({ exitCode: 127, error }));
        expect(result.exitCode).toBe(127);
      }
      for (const user of ['--help', 'root:wheel', '0;id', '../x', '4294967296', '-1']) {
        const result = await stage.world
          .exec({ slug: escape.opened.slug, argv: ['/bin/id'], user })
          .catch(() => undefined);
        expect(result === undefined || result.exitCode !== 0, user).toBe(true);
      }
    });

    test('E28: names of bottles become words or are refused', async () => {
      const directory = at('names');
      const names = {
        '../../x': 'x',
        'a;rm -rf b': 'a-rm-rf-b',
        '--privileged': 'privileged',
        '$(id)': 'id',
        'A rm/RF b': 'a-rm-rf-b-2',
      };
      const opened: Escape[] = [];
      for (const [name, slug] of Object.entries(names)) {
        const one = await stage.open(name, { directory });
        opened.push(one);
        expect(one.opened).toMatchObject({ slug, state: join(directory, slug) });
      }
      await opened[0]!.works([CONTROL]);
      await Promise.all(opened.map((one) => stage.world.stop(one.opened.slug)));
      for (const name of ['', '-', '..', 'a\nb', 'a\0b', 'x'.repeat(300), '\u0430\u0431']) {
        await expect(stage.open(name, { directory }), JSON.stringify(name)).rejects.toThrow(/name/);
      }
      expect(readdirSync(directory)).toEqual(['audit.d']);
    });

    test('E34: what is used up is used up in the bottle', async () => {
      const [bomb, disk, memory] = await escape.attack(
        [
          { do: 'fork_bomb' },
          { do: 'fill', path: '/home/agent/full', most: 256 * MIB },
          { do: 'hog', megabytes: 1024 },
        ],
        'root',
      );
      expect(bomb).toMatchObject({ error: 'EAGAIN' });
      expect(bomb?.['children']).toBeLessThanOrEqual(256);
      expect(disk?.error).toMatch(/ENOSPC|EDQUOT/);
      expect(disk?.['written']).toBeLessThanOrEqual(64 * MIB);
      expect(memory?.['status']).not.toBe(0);
      const floods = escape.attack([
        { do: 'flood', count: 700 },
        { do: 'endless_head', megabytes: 100 },
        { do: 'hoard' },
        { do: 'fill', path: '/tmp/full', most: 256 * MIB },
        { do: 'fill', path: '/dev/shm/full', most: 256 * MIB },
        { do: 'denials', count: 3000 },
      ]);
      // Meanwhile the neighbour works as ever.
      const times = (await other.attack(Array.from({ length: 20 }, () => CONTROL))).map(({ ms, status }) => {
        expect(status).toBe(200);
        return ms;
      });
      // A busy machine holds up some of them; a neighbour that is starved waits each time.
      expect(times.toSorted((a, b) => a - b)[9]).toBeLessThan(PROMPT_MS);
      const [flood, head, hoard, tmp, memoryDisk, denials] = await floods;
      expect(hoard).toMatchObject({ error: 'EMFILE' });
      for (const full of [tmp, memoryDisk]) {
        expect(full?.error).toMatch(/ENOSPC|EDQUOT/);
        expect(full?.['written']).toBeLessThanOrEqual(64 * MIB);
      }
      // Each was refused; the audit lists some and counts the rest.
      expect(denials).toMatchObject({ refused: 3000 });
      const lines = (await stage.world.audit(escape.opened.slug)).filter(({ rule }) => rule === 'no-route');
      expect(lines.length).toBeLessThan(1000 + (200 * (denials?.ms ?? 0)) / 1000);
      expect(flood?.['held']).toBeGreaterThan(0);
      expect(head?.['sent']).toBeLessThan(16 * MIB);
      const afterwards = async () => {
        const [control] = await other.attack([CONTROL]);
        expect(control).toMatchObject({ status: 200 });
        return control?.ms;
      };
      await expect.poll(afterwards).toBeLessThan(PROMPT_MS);
      expect((await slow)[0]?.['after']).toBeLessThan(55);
      await escape.works([CONTROL]);
    });

    test(
      'E32: bottles that begin together are apart, whatever becomes of the others',
      { timeout: 300_000 },
      async () => {
        const several = await Promise.all(Array.from({ length: TOGETHER[backend] }, () => stage.open('same')));
        expect(new Set(several.map(({ opened }) => opened.slug)).size).toBe(several.length);
        const own = (one: Escape) => ({ do: 'get', url: `https://allowed.test/of/${one.opened.slug}` });
        const found = await Promise.all(
          several.map((one) => one.attack([{ do: 'read', path: '/etc/decant/ca.pem' }, own(one)])),
        );
        expect(new Set(found.map(([file]) => file?.received)).size).toBe(several.length);
        for (const [, reached] of found) expect(reached).toMatchObject({ status: 200 });
        // Some are stopped and some lose their fence; the others do not notice.
        const [stopped, killed, rest] = [several.slice(0, 2), several.slice(2, 4), several.slice(4)];
        await Promise.all([
          ...stopped.map((one) => stage.world.stop(one.opened.slug)),
          ...killed.map((one) => stage.world.killSidecar(one.opened.slug)),
          ...rest.map((one) => one.works([own(one)])),
        ]);
        for (const one of rest) {
          const paths = (await stage.world.audit(one.opened.slug)).flatMap(({ path }) =>
            path?.startsWith('/of/') ? [path] : [],
          );
          expect(new Set(paths)).toEqual(new Set([`/of/${one.opened.slug}`]));
        }
        await Promise.all([...killed, ...rest].map((one) => stage.world.stop(one.opened.slug)));
      },
    );

    test.each([
      ['image', /the image cannot be had/],
      ['sidecar', /The fence of the bottle is not there/],
      ['certificate', /its certificate cannot be read/],
      ['port', /port \d+|Address already in use/],
      ['provision', /the set-up fails/],
      ['teardown', /the image cannot be let go/],
    ] as const)('E33: when the %s fails nothing is left, and it is said', async (part, message) => {
      const directory = at(`failing-${part}`);
      const request = { backend, name: `failing-${part}`, directory, image: await attackImage(), policy: POLICY };
      expect(await stage.world.fail(request, part)).toMatch(message);
      expect(readdirSync(directory)).toEqual(['audit.d']);
      expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(directory);
      expect(processesOf(directory, `failing-${part}`)).toEqual([]);
    });

    test('E27 and E33: without its fence a bottle is closed, and nothing of it stays', async () => {
      const doomed = await stage.open('doomed');
      const marker = `left-${canary}`;
      const { slug } = doomed.opened;
      const left = await stage.world.exec({
        slug,
        argv: ['/usr/bin/python3', '/attack/attack.py', marker],
        input: JSON.stringify([{ do: 'linger' }, CONTROL]),
      });
      expect(JSON.parse(left.stdout)).toMatchObject([{ left: true }, { status: 200 }]);
      expect(marked(marker)).not.toHaveLength(0);
      await stage.world.killSidecar(slug);
      const outcome = await doomed
        .attack([
          { do: 'connect', target: 'allowed.test:443' },
          { do: 'tcp', address: '203.0.113.5', port: 443 },
        ])
        .catch(() => 'ended' as const);
      if (outcome !== 'ended') for (const one of outcome) expect(one).toMatchObject({ error: 'ECONNREFUSED' });
      await stage.world.stop(slug).catch(() => undefined);
      expect(await gone(marker)).toBe(true);
      await other.works([CONTROL]);
    });
  });
});

/** Processes that name a bottle's folder or its container. */
function processesOf(directory: string, slug: string): readonly string[] {
  const lines = execFileSync('ps', ['-eo', 'pid,args'], { encoding: 'utf8' }).split('\n');
  return lines.filter((line) => line.includes(directory) || line.includes(`decant-${slug}-`));
}

function marked(marker: string): readonly string[] {
  const lines = execFileSync('ps', ['-eo', 'pid,args'], { encoding: 'utf8' }).split('\n');
  return lines.filter((line) => line.includes(marker) && line.includes('attack.py'));
}

async function gone(marker: string): Promise<boolean> {
  for (let i = 0; i < 600; i++) {
    if (marked(marker).length === 0) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}
