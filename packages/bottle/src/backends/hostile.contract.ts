import { randomBytes } from 'node:crypto';
import { access, readFile, readlink, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import type { Machine } from './backend.ts';
import {
  eventually,
  MIB,
  ownSeconds,
  perl,
  processesWith,
  ran,
  Screen,
  shell,
  type BackendFixture,
} from './guest-tools.contract.ts';

const CALLS =
  process.arch === 'arm64'
    ? {
        ptrace: 117,
        unshare: 97,
        bpf: 280,
        ioUring: 425,
        mount: 40,
        setns: 268,
        keyctl: 219,
        perf: 241,
        openByHandle: 265,
      }
    : {
        ptrace: 101,
        unshare: 272,
        bpf: 321,
        ioUring: 425,
        mount: 165,
        setns: 308,
        keyctl: 250,
        perf: 298,
        openByHandle: 304,
      };

/**
 * CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT and SETFCAP, as the kernel shows
 * them.
 */
const ROOT_RIGHTS = '800405fb';

/** E16 (what a process can look at), E26, E27 and E34, as far as they need no network. */
export function hostileContract(get: () => { readonly fixture: BackendFixture; readonly machine: Machine }): void {
  test('the kernel refuses what a guest has no use for', async () => {
    const { machine } = get();
    const refused = async (name: string, call: string) => {
      const { out } = await perl(machine, `my $s = "x" x 64; my $r = ${call}; print $r < 0 ? $!+0 : "allowed"`);
      expect(['1', '38'], name).toContain(out);
    };
    await refused('unshare', `syscall(${CALLS.unshare}, 0x10000000)`);
    await refused('mounts of its own', `syscall(${CALLS.unshare}, 0x20000)`);
    await refused('bpf', `syscall(${CALLS.bpf}, 0, $s, 64)`);
    await refused('io_uring', `syscall(${CALLS.ioUring}, 8, $s)`);
    await refused('keyctl', `syscall(${CALLS.keyctl}, 0, 0)`);
    await refused('perf', `syscall(${CALLS.perf}, $s, 0, -1, -1, 0)`);
    await refused('open_by_handle_at', `syscall(${CALLS.openByHandle}, -100, $s, 0)`);
    await refused('setns', `syscall(${CALLS.setns}, 0, 0)`);
    for (const [name, family, type] of [
      ['packet', 17, 3],
      ['raw', 2, 3],
      ['raw6', 10, 3],
      ['vsock', 40, 1],
      ['alg', 38, 5],
    ] as const) {
      await refused(
        `socket ${name}`,
        `(socket(my $f, ${family}, ${type}, ${name.startsWith('raw') ? 1 : 0}) ? 0 : -1)`,
      );
    }
    expect((await perl(machine, 'print socket(my $f, 1, 1, 0) && socket(my $g, 2, 1, 0) ? "ok" : "no"')).out).toBe(
      'ok',
    );
  });

  test('a command has the rights of the plan, three files and namespaces of its own, and its mounts give none', async () => {
    const { machine } = get();
    const facts = 'grep -E "^(Cap|NoNew|Seccomp:)" /proc/self/status; cat /proc/self/limits; ls /proc/self/fd';
    const right = (set: string, mask: string) => new RegExp(`^Cap${set}:\\t${mask.padStart(16, '0')}$`, 'm');
    for (const [user, mask] of [
      ['root', ROOT_RIGHTS],
      ['app', '0'],
    ] as const) {
      const { out } = await ran(machine, ['sh', '-c', facts], { user });
      expect(out).toMatch(right('Eff', mask));
      expect(out).toMatch(right('Prm', mask));
      expect(out).toMatch(right('Inh', '0'));
      expect(out).toMatch(right('Bnd', ROOT_RIGHTS));
      expect(out).toMatch(/^NoNewPrivs:\t1$/m);
      expect(out).toMatch(/^Seccomp:\t2$/m);
      expect(out).toMatch(/^Max core file size +0 +0 /m);
      expect(out).toMatch(/^Max processes +128 +128 /m);
      expect(Number(/^Max open files +\d+ +(\d+) /m.exec(out)?.[1])).toBeLessThanOrEqual(65_536);
      // The fourth is the folder that is listed.
      expect(out).toMatch(/\n0\n1\n2\n3\n$/);
    }
    const first = (await shell(machine, 'cat /proc/1/status')).out;
    for (const set of ['Eff', 'Prm', 'Inh', 'Bnd']) expect(first).toMatch(right(set, '0'));
    expect(first).toMatch(/^NoNewPrivs:\t1$/m);
    expect(first).toMatch(/^Seccomp:\t2$/m);
    const namespaces = (await shell(machine, 'for n in /proc/self/ns/*; do echo "${n##*/} $(readlink $n)"; done')).out;
    for (const kind of ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts']) {
      const inside = new RegExp(`^${kind} (\\S+)$`, 'm').exec(namespaces)?.[1];
      expect(inside).toMatch(/^\w+:\[\d+\]$/);
      expect(inside).not.toBe(await readlink(`/proc/self/ns/${kind}`));
    }
    const mounts = (await shell(machine, 'cat /proc/self/mounts')).out.trim().split('\n');
    const options = new Map(mounts.map((line) => [line.split(' ')[1]!, line.split(' ')[3]!.split(',')]));
    for (const [path, words] of options)
      if (!path.startsWith('/proc/')) expect([path, words]).toContainEqual(expect.arrayContaining(['nosuid']));
    for (const name of ['sys', 'sysrq-trigger', 'irq', 'bus', 'fs', 'pressure']) {
      if ((await stat(`/proc/${name}`).catch(() => undefined)) === undefined) continue;
      expect([name, options.get(`/proc/${name}`)]).toContainEqual(
        expect.arrayContaining(['ro', 'nosuid', 'nodev', 'noexec']),
      );
    }
    expect(options.get('/')).toContain('nodev');
    expect(options.get('/dev')).toContain('ro');
    expect(options.get('/dev/shm')).toEqual(expect.arrayContaining(['nodev', 'noexec', 'size=65536k']));
  });

  test('mounts, devices, the kernel and its settings stay out of reach', async () => {
    const { machine } = get();
    for (const attempt of [
      'mount -t tmpfs x /tmp',
      'mount -o remount,rw /dev',
      'mknod /tmp/d b 8 0',
      'mknod /tmp/c c 1 1',
      'unshare -U true',
      'echo 1 > /proc/sys/kernel/core_pattern',
      'echo 1 > /proc/sys/vm/drop_caches',
      'echo b > /proc/sysrq-trigger',
      'touch /dev/x',
      'ls /sys/fs/cgroup/*',
      'cat /proc/kcore',
      'cat /dev/mem',
      'ip link set lo down',
      'ip route add 10.0.0.0/8 dev lo',
      'hostname changed',
      'chown 70000 /tmp',
    ]) {
      expect((await shell(machine, attempt)).exitCode, attempt).not.toBe(0);
    }
  });

  test('nothing of the host can be seen: processes, environments, paths, sockets', async () => {
    const { fixture, machine } = get();
    const canary = `canary${randomBytes(8).toString('hex')}`;
    const file = join(fixture.folder, canary);
    await writeFile(file, canary, { mode: 0o644 });
    const socket = join(fixture.folder, `${canary}.sock`);
    const listening = createServer().listen(`\0${canary}`);
    const server = createServer().listen(socket);
    process.env['DECANT_TEST_CANARY'] = canary;
    try {
      const looked = await shell(
        machine,
        `cat /proc/*/environ /proc/*/cmdline /proc/*/mounts /proc/*/mountinfo /proc/*/cgroup /proc/net/unix 2>/dev/null; ls -l /proc/1/ /proc/*/fd /proc/*/cwd /proc/*/root 2>&1; cat ${file} ${socket}; ls -d /proc/[0-9]*; env`,
      );
      // The script names them itself.
      const shown = (looked.out + looked.err).replaceAll(file, '').replaceAll(socket, '');
      expect(shown).not.toContain(canary);
      expect(shown).not.toContain(fixture.folder);
      expect(looked.out).not.toMatch(/perl.*-e/);
      const pids = looked.out.match(/^\/proc\/\d+$/gm) ?? [];
      expect(pids.length).toBeLessThan(12);
      expect((await shell(machine, `cat ${file} || cat /etc/shadow`)).exitCode).not.toBe(0);
      const connect = `socket(my $s, 1, 1, 0); print connect($s, pack("S a*", 1, "\\0${canary}")) ? "in" : "out"`;
      expect((await perl(machine, connect)).out).toBe('out');
      expect((await shell(machine, 'cat /proc/1/mem; ls /proc/1/root/; readlink /proc/1/exe')).exitCode).not.toBe(0);
    } finally {
      delete process.env['DECANT_TEST_CANARY'];
      server.close();
      listening.close();
    }
  });

  test('nothing outside can be signalled, traced or typed to', async () => {
    const { machine } = get();
    const attempts = await perl(
      machine,
      `my @r; for my $pid (1, getppid, ${process.pid}) { push @r, $pid && syscall(${CALLS.ptrace}, 16, $pid, 0, 0) == 0 ? "traced $pid" : "no" }
       push @r, "killed" if kill 9, ${process.pid}; kill 9, 1; kill 9, -1 if 0; print "@r"`,
    );
    expect(attempts.out).toBe('no no no');
    expect((await ran(machine, ['true'])).exitCode).toBe(0);
    const terminal = { columns: 80, rows: 24 };
    const typing =
      'my $c = "x"; my @r; for my $q (0x5412, 0x541c, 0x100005412, 0xffffffff00005412) { my $d = "\\3x"; push @r, ioctl(STDIN, $q, $d) ? "typed" : $!+0 } print "<@r>"';
    for (const user of ['root', 'app']) {
      const running = await machine.exec({ argv: ['perl', '-e', typing], user, terminal });
      const screen = new Screen(running);
      await running.exit;
      await eventually(() => screen.text).toContain('<1 1 1 1>');
    }
  });

  test('a process that cannot be joined sees nothing of those who join', async () => {
    const { machine } = get();
    // Watches all that appears in its process table for what only a process has that has not begun to be a command.
    const watch = `my (%seen, %found); until (-e "/tmp/seen-enough") {
      opendir my $all, "/proc" or die; for my $n (grep { /^[0-9]+$/ } readdir $all) { next if $n == $$; $found{$n}++;
        for my $f ("environ", "maps") { if (open(my $h, "<", "/proc/$n/$f")) { my $x = ""; 1 while sysread $h, $x, 65536, length $x; $seen{$f}++ if $x =~ /LC_ALL=C|perl/ } }
        my $e = readlink "/proc/$n/exe"; $seen{"exe:$e"}++ if $e && $e !~ m{^/bin/} } }
      print join("|", sort keys %seen), " of ", scalar(keys %found) > 10 ? "many" : "few"`;
    const watching = perl(machine, watch);
    for (let i = 0; i < 25; i++) await ran(machine, ['true'], { user: 'root' });
    await shell(machine, 'touch /tmp/seen-enough');
    expect(await watching).toMatchObject({ exitCode: 0, err: '', out: ' of many' });
  });

  test('a fork bomb, a memory hog and a disk fill stay inside', async () => {
    const { fixture } = get();
    const name = `bomb${ownSeconds(92)}`;
    const machine = await fixture.open({
      limits: { cpus: 1, memoryBytes: 64 * MIB, processes: 40, diskBytes: 32 * MIB, wallTimeMs: 60_000 },
    });
    try {
      const bomb = await machine.exec({
        argv: [
          'perl',
          '-e',
          '$0 = shift; $SIG{CHLD} = "IGNORE"; my $end = time + 60; while (time < $end) { my $p = fork; select undef, undef, undef, 0.01 if !defined $p }',
          name,
        ],
      });
      // In the middle of it the operator still gets in.
      const counted = await perl(machine, 'opendir my $all, "/proc"; print scalar grep { /^[0-9]+$/ } readdir $all');
      expect(counted.exitCode).toBe(0);
      expect(Number(counted.out)).toBeGreaterThan(0);
      expect(Number(counted.out)).toBeLessThan(60);
      await shell(machine, 'kill -9 -1');
      await bomb.signal('SIGKILL');
      await bomb.exit;
      const hog = await ran(machine, ['perl', '-e', 'my @a; push @a, "x" x 1000000 for 1 .. 400; print "survived"']);
      expect(hog).toMatchObject({ exitCode: 137, out: '' });
      const disk = await ran(machine, ['sh', '-c', 'yes > /job/fill; rm /job/fill; echo on']);
      expect(disk).toMatchObject({ out: 'on\n', exitCode: 0 });
      expect((await ran(machine, ['true'])).exitCode).toBe(0);
    } finally {
      await machine[Symbol.asyncDispose]();
    }
    await eventually(() => processesWith(name)).toEqual([]);
  });

  test('an orphan in a session of its own dies with the machine', async () => {
    const { fixture } = get();
    const machine = await fixture.open();
    const seconds = ownSeconds(91);
    const daemon = `setsid sh -c "setsid sleep ${seconds} & sleep ${seconds}" >/dev/null 2>&1 </dev/null &`;
    await ran(machine, ['sh', '-c', daemon]);
    await eventually(async () => (await processesWith(seconds)).length).toBeGreaterThan(1);
    const network = machine.networkNamespace;
    await access(network);
    await machine[Symbol.asyncDispose]();
    expect(await processesWith(seconds)).toEqual([]);
    expect(await readFile('/proc/self/mounts', 'utf8')).not.toContain(fixture.folder);
  });
}
