import { chmod, mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { run } from '@decant/core/node';
import { expect, test } from 'vitest';

import type { Backend, Machine, MachineRequest } from './backend.ts';
import { MIB, ran, shell, type BackendFixture } from './guest-tools.contract.ts';

/** E26 of mounts, bounds of what is written, and the export of what was written. */
export function storageContract(
  get: () => { readonly fixture: BackendFixture; readonly machine: Machine },
  createBackend: (options: { readonly hiddenFolders: readonly string[] }) => Backend,
): void {
  test('mounts: read-only, read-write, changes thrown away, memory', async () => {
    const { fixture } = get();
    const host = join(fixture.folder, 'mounted');
    for (const name of ['ro', 'rw', 'over']) {
      await mkdir(join(host, name), { recursive: true });
      await writeFile(join(host, name, 'file'), `host ${name}\n`);
    }
    await chmod(join(host, 'rw'), 0o700);
    await writeFile(join(host, 'one'), 'one file\n', { mode: 0o600 });
    await symlink(join(host, 'ro'), join(host, 'linked'));
    const machine = await fixture.open({
      mounts: [
        { type: 'read-only', source: join(host, 'linked'), target: '/mnt/ro' },
        { type: 'read-write', source: join(host, 'rw'), target: '/job/rw' },
        { type: 'overlay', source: join(host, 'over'), target: '/mnt/over' },
        { type: 'read-only', source: join(host, 'one'), target: '/mnt/deep/er/one' },
        { type: 'tmpfs', target: '/mnt/memory', sizeBytes: MIB },
      ],
    });
    try {
      const as = async (script: string) => (await ran(machine, ['sh', '-c', script])).out;
      expect(await as('cat /mnt/ro/file /job/rw/file /mnt/over/file /mnt/deep/er/one')).toBe(
        'host ro\nhost rw\nhost over\none file\n',
      );
      expect(await as('stat -c %u:%g /mnt/ro/file /job/rw/file /mnt/over/file')).toBe('1000:1001\n'.repeat(3));
      expect(await as('echo x > /mnt/ro/file; echo x > /mnt/ro/new; rm /mnt/ro/file; echo $?')).toBe('1\n');
      await as(
        'echo changed > /job/rw/file; echo new > /job/rw/new; echo changed > /mnt/over/file; echo new > /mnt/over/new',
      );
      expect(await as('cat /mnt/over/file /mnt/over/new')).toBe('changed\nnew\n');
      expect(await readFile(join(host, 'ro/file'), 'utf8')).toBe('host ro\n');
      expect(await readFile(join(host, 'rw/file'), 'utf8')).toBe('changed\n');
      expect(await readFile(join(host, 'over/file'), 'utf8')).toBe('host over\n');
      const made = await stat(join(host, 'rw/new'));
      const owner = await stat(join(host, 'rw'));
      expect([made.uid, made.gid]).toEqual([owner.uid, owner.gid]);
      expect(
        (await ran(machine, ['sh', '-c', 'dd if=/dev/zero of=/mnt/memory/big bs=1048576 count=3'])).exitCode,
      ).not.toBe(0);
      // Root inside can do no more with a mount than its user.
      const tries = ['mount -o remount,rw /mnt/ro', 'umount /mnt/ro', 'mount -t tmpfs x /mnt', 'echo x > /mnt/ro/file'];
      for (const attempt of tries) expect((await shell(machine, attempt)).exitCode, attempt).not.toBe(0);
      const table = (await shell(machine, 'cat /proc/self/mounts')).out;
      expect(table).not.toContain(fixture.folder);
      for (const target of ['/mnt/ro', '/job/rw', '/mnt/over', '/mnt/deep/er/one', '/mnt/memory']) {
        const options = table
          .split('\n')
          .find((line) => line.split(' ')[1] === target)
          ?.split(' ')[3]
          ?.split(',');
        expect([target, options]).toEqual([target, expect.arrayContaining(['nosuid', 'nodev'])]);
      }
      expect((await shell(machine, 'cat /proc/self/mountinfo')).out).not.toContain('/state-');
      // A program with rights of its owner cannot be left on the host.
      await as('cp /bin/busybox /job/rw/s 2>/dev/null || cat /bin/busybox > /job/rw/s; chmod 4755 /job/rw/s');
      await shell(machine, 'chmod 4755 /job/rw/s');
      expect((await stat(join(host, 'rw/s'))).mode & 0o7000).toBe(0);
      await expect(machine.copyOut('/mnt/ro', join(host, 'rw/copied'))).rejects.toMatchObject({ code: 'USAGE' });
      await expect(machine.copyIn(join(host, 'rw'), '/tmp/rw')).rejects.toMatchObject({ code: 'USAGE' });
    } finally {
      await machine[Symbol.asyncDispose]();
    }
  });

  test('what cannot be mounted', async () => {
    const { fixture } = get();
    await symlink('/proc', join(fixture.folder, 'to-proc'));
    const source = join(fixture.folder, 'tree');
    const wrong: MachineRequest['mounts'] = [
      { type: 'read-only', source: '/proc', target: '/mnt' },
      { type: 'read-only', source: '/proc/1', target: '/mnt' },
      { type: 'read-only', source: '/sys/fs', target: '/mnt' },
      { type: 'read-only', source: '/dev/shm', target: '/mnt' },
      { type: 'read-only', source: '/run', target: '/mnt' },
      { type: 'read-only', source: '/', target: '/mnt' },
      { type: 'read-only', source: join(fixture.folder, 'to-proc'), target: '/mnt' },
      { type: 'read-only', source: join(fixture.folder, 'missing'), target: '/mnt' },
      { type: 'read-only', source: 'relative', target: '/mnt' },
      { type: 'read-only', source, target: 'relative' },
      { type: 'read-only', source, target: '/a/../../b' },
      { type: 'read-only', source, target: '/' },
      { type: 'read-only', source, target: '/proc' },
      { type: 'read-only', source, target: '/dev/pts' },
      { type: 'tmpfs', target: '/mnt', sizeBytes: 0 },
    ];
    for (const mount of wrong) {
      await expect(fixture.open({ mounts: [mount] }), JSON.stringify(mount)).rejects.toMatchObject({ code: 'USAGE' });
    }
    const hiding = createBackend({ hiddenFolders: [source] });
    const shown = fixture.open(
      { mounts: [{ type: 'read-only', source: join(source, 'bin'), target: '/mnt' }] },
      hiding,
    );
    await expect(shown).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining('stays hidden') });
  });

  test('a target that is a link stays inside', async () => {
    const { fixture } = get();
    const source = join(fixture.folder, 'mount-source');
    await mkdir(source, { recursive: true });
    const machine = await fixture.open({
      mounts: [{ type: 'read-write', source, target: '/bin/../job/x'.replace('/bin/..', '') }],
    });
    await ran(machine, ['touch', '/job/x/here']);
    expect((await stat(join(source, 'here'))).isFile()).toBe(true);
    await machine[Symbol.asyncDispose]();
  });

  test('what is written is bounded', async () => {
    const { fixture } = get();
    const machine = await fixture.open();
    const full = await shell(
      machine,
      'dd if=/dev/zero of=/job/big bs=1048576 count=200; stat -c %s /job/big; rm /job/big',
    );
    expect(full.err).toContain('No space left');
    expect(Number(full.out.split('\n')[0])).toBeLessThan(64 * MIB);
    expect((await shell(machine, 'echo fits > /job/small && cat /job/small')).out).toBe('fits\n');
    await machine[Symbol.asyncDispose]();
  });

  test('changes as a layer: new, changed and deleted, with owners, modes and links', async () => {
    const { fixture } = get();
    const machine = await fixture.open();
    try {
      await ran(machine, [
        'sh',
        '-c',
        'echo mine > /job/mine; mkdir /job/d; ln -s ../mine /job/d/link; ln /job/mine /job/hard',
      ]);
      const long = 'n'.repeat(120);
      await shell(
        machine,
        `rm /old/file; rm -r /old/inner; mkdir /old/inner; echo again > /old/inner/new; echo more >> /etc/passwd; chmod 4711 /job/d; echo l > /job/${long}; printf 'ü' > /job/ü; chown 65533:7 /job/${long}; mkfifo /job/pipe`,
      );
      const pieces: Buffer[] = [];
      for await (const piece of machine.exportChanges()) pieces.push(Buffer.from(piece));
      const tar = join(fixture.folder, 'changes.tar');
      await writeFile(tar, Buffer.concat(pieces));
      const { stdout } = await run('tar', ['--numeric-owner', '--quoting-style=literal', '-tvf', tar]);
      const lines = stdout.toString().trim().split('\n');
      const of = (name: string) => lines.find((line) => line.split(' ').some((word) => word === name)) ?? '';
      expect(of('job/hard')).toMatch(/^-rw-r--r-- 1000\/1001 +5 /);
      expect(of('job/d/')).toMatch(/^drws--x--x 1000\/1001/);
      expect(lines.some((line) => line.endsWith('job/d/link -> ../mine'))).toBe(true);
      expect(lines.some((line) => line.endsWith('job/mine link to job/hard'))).toBe(true);
      expect(of('old/.wh.file')).toMatch(/^-/);
      expect(of('old/inner/.wh..wh..opq')).toMatch(/^-/);
      expect(of('old/inner/new')).toMatch(/^-rw-r--r-- 0\/0/);
      expect(of(`job/${long}`)).toMatch(/^-rw-r--r-- 65533\/7/);
      expect(of('job/ü')).toMatch(/^-/);
      expect(of('job/pipe')).toMatch(/^p/);
      expect(lines.some((line) => / bin\/busybox| dev\/null/.test(line))).toBe(false);
      expect((await run('tar', ['-xOf', tar, 'etc/passwd'])).stdout.toString()).toMatch(/more\n$/);
      // Commands stood still while it was read, and go on.
      expect((await ran(machine, ['true'])).exitCode).toBe(0);
    } finally {
      await machine[Symbol.asyncDispose]();
    }
  });
}
