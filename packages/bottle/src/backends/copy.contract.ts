import {
  chmod,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { run } from '@decant/core/node';
import { expect, test } from 'vitest';

import type { Machine } from './backend.ts';
import { MIB, ran, shell, type BackendFixture } from './guest-tools.contract.ts';

/** E25: copies stay where they are told to, whatever is inside does meanwhile. */
export function copyContract(get: () => { readonly fixture: BackendFixture; readonly machine: Machine }): void {
  let number = 0;
  /** A new folder of the host. */
  async function folder(): Promise<string> {
    const path = join(get().fixture.folder, `copy-${number++}`);
    await mkdir(path);
    return path;
  }

  test('a tree goes in, belongs to the user, and comes out the same', async () => {
    const { machine } = get();
    const from = await folder();
    await mkdir(join(from, 'src/deep/er'), { recursive: true });
    await writeFile(join(from, 'src/run.sh'), '#!/bin/sh\necho ran\n', { mode: 0o755 });
    await writeFile(join(from, 'src/deep/er/data'), Buffer.alloc(3 * MIB, 'abc'));
    await writeFile(join(from, 'src/empty'), '');
    await writeFile(Buffer.concat([Buffer.from(`${from}/src/`), Buffer.from([0xff, 0x20, 0x0a])]), 'odd name');
    await symlink('/etc/shadow', join(from, 'src/absolute'));
    await symlink('../../../outside', join(from, 'src/above'));
    await chmod(join(from, 'src/deep'), 0o500);
    await chmod(join(from, 'src/run.sh'), 0o6755);

    await machine.copyIn(join(from, 'src'), '/job/new/place');
    const listed = await shell(
      machine,
      'cd /job/new/place && ls -ln run.sh && stat -c "%a %u:%g" . deep empty && ./run.sh && readlink absolute && readlink above',
    );
    expect(listed.out).toMatch(/^-rwxr-xr-x +1 1000 +1001 /);
    expect(listed.out).toContain('755 1000:1001\n500 1000:1001\n644 1000:1001\nran\n/etc/shadow\n../../../outside\n');

    await machine.copyOut('/job/new/place', join(from, 'back'));
    expect(
      (await run('diff', ['-r', '--no-dereference', join(from, 'src'), join(from, 'back')])).stdout.toString(),
    ).toBe('');
    expect(await readlink(join(from, 'back/absolute'))).toBe('/etc/shadow');
    expect((await stat(join(from, 'back/run.sh'))).mode & 0o7777).toBe(0o755);
    expect(
      (await readdir(join(from, 'back'), { encoding: 'buffer' })).map((name) => name.toString('latin1')),
    ).toContain('\xff \n');
  });

  test('into a directory that is there, over a file that is there, and not over a directory', async () => {
    const { machine } = get();
    const from = await folder();
    await writeFile(join(from, 'file'), 'new');
    await shell(machine, 'mkdir -p /job/there/taken/file; echo old > /job/there/file; ln -s /job/there /job/link');
    await machine.copyIn(join(from, 'file'), '/job/link/');
    expect((await shell(machine, 'cat /job/there/file')).out).toBe('new');
    await machine.copyIn(join(from, 'file'), '/job/there/other');
    expect((await shell(machine, 'cat /job/there/other')).out).toBe('new');
    await expect(machine.copyIn(join(from, 'file'), '/job/there/taken')).rejects.toMatchObject({ code: 'USAGE' });
    await expect(machine.copyIn(join(from, 'file'), 'relative')).rejects.toMatchObject({ code: 'USAGE' });
    // Also when there is more to come than fits into a pipe.
    await writeFile(join(from, 'large'), Buffer.alloc(5 * MIB, 'x'));
    await expect(machine.copyIn(join(from, 'large'), '/job/there/file/below')).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining('/job/there/file') as string,
    });
    await expect(machine.copyIn(join(from, 'missing'), '/job/x')).rejects.toMatchObject({ code: 'USAGE' });
    await expect(machine.copyOut('/job/missing', join(from, 'x'))).rejects.toMatchObject({ code: 'USAGE' });
    await expect(machine.copyOut('/job/there', join(from, 'file'))).rejects.toMatchObject({ code: 'USAGE' });
    expect(await readFile(join(from, 'file'), 'utf8')).toBe('new');
    // A name that begins like another one is another one.
    await shell(machine, 'mkdir -p /job/dir /job/dir2; echo 1 > /job/dir/a; echo 2 > /job/dir2/b');
    await machine.copyOut('/job/dir', join(from, 'dir'));
    expect(await readdir(join(from, 'dir'))).toEqual(['a']);
  });

  test('links inside lead to places inside', async () => {
    const { fixture, machine } = get();
    const from = await folder();
    await writeFile(join(from, 'canary'), 'canary');
    await shell(machine, `ln -s ${fixture.folder} /job/out; ln -s /etc /job/etc; ln -s / /job/up`);
    await machine.copyIn(join(from, 'canary'), '/job/etc/decant-canary');
    expect((await shell(machine, 'cat /etc/decant-canary')).out).toBe('canary');
    await expect(lstat('/etc/decant-canary')).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(machine.copyOut('/job/out/tree', join(from, 'tree'))).rejects.toMatchObject({ code: 'USAGE' });
    await machine.copyOut('/job/up/etc/passwd', join(from, 'passwd'));
    expect(await readFile(join(from, 'passwd'), 'utf8')).toContain('/home/app');
    await expect(machine.copyOut('/proc/self/root/etc/private', join(from, 'p'))).resolves.toBeUndefined();
    expect(await readFile(join(from, 'p'), 'utf8')).toBe('for image root\n');
  });

  test('devices, pipes and sockets are refused, either way, and nothing stays', async () => {
    const { machine } = get();
    const from = await folder();
    await mkdir(join(from, 'pipes'));
    await run('mkfifo', [join(from, 'pipes/fifo')]);
    await expect(machine.copyIn(join(from, 'pipes'), '/job/p')).rejects.toMatchObject({ code: 'USAGE' });
    await expect(machine.copyIn('/dev/null', '/job/null')).rejects.toMatchObject({ code: 'USAGE' });
    const server = createServer().listen(join(from, 'pipes/socket'));
    await expect(machine.copyIn(join(from, 'pipes/socket'), '/job/s')).rejects.toMatchObject({ code: 'USAGE' });
    server.close();
    await shell(machine, 'mkdir /job/odd; echo a > /job/odd/a; mkfifo /job/odd/fifo');
    await expect(machine.copyOut('/job/odd', join(from, 'odd'))).rejects.toMatchObject({ code: 'USAGE' });
    await expect(machine.copyOut('/dev/zero', join(from, 'zero'))).rejects.toMatchObject({ code: 'USAGE' });
    await expect(lstat(join(from, 'odd'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('setuid bits, hard links and holes come out harmless', async () => {
    const { machine } = get();
    const from = await folder();
    const script =
      'mkdir /job/risky; cd /job/risky; cp /bin/busybox s; chmod 6755 s; ln /etc/private hard; ln hard hard2; truncate -s 10G sparse; echo end >> sparse';
    await shell(machine, script.replace('cp /bin/busybox s', 'cat /bin/busybox > s'));
    await machine.copyOut('/job/risky', join(from, 'risky'));
    const info = async (name: string) => await stat(join(from, 'risky', name));
    expect((await info('s')).mode & 0o7000).toBe(0);
    expect((await info('hard')).nlink).toBe(1);
    const sparse = await info('sparse');
    expect(sparse.size).toBe(10 * 1024 ** 3 + 4);
    expect(sparse.blocks * 512).toBeLessThan(MIB);
    await truncate(join(from, 'risky/sparse'), 300 * MIB);
    await machine.copyIn(join(from, 'risky/sparse'), '/job/sparse-in');
    const kib = Number(
      (await shell(machine, 'du -k /job/sparse-in 2>/dev/null || stat -c %b /job/sparse-in')).out.split(/\s/)[0],
    );
    expect(kib).toBeLessThan(2048);
    const { out } = await shell(machine, 'stat -c %s /job/sparse-in');
    expect(out).toBe(`${300 * MIB}\n`);
  });

  test('limits', async () => {
    const { machine } = get();
    const from = await folder();
    for (let i = 0; i < 5; i++) await writeFile(join(from, `f${i}`), 'x'.repeat(100));
    await link(join(from, 'f0'), join(from, 'f5'));
    const few = { entries: 4, bytes: MIB };
    const little = { entries: 100, bytes: 450 };
    for (const limits of [few, little]) {
      await expect(machine.copyIn(from, '/job/limited', limits)).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
    }
    await machine.copyIn(from, '/job/whole');
    for (const limits of [few, little]) {
      const target = join(from, 'back');
      await expect(machine.copyOut('/job/whole', target, limits)).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
      await expect(lstat(target)).rejects.toMatchObject({ code: 'ENOENT' });
    }
    const endless = machine.copyOut('/job/whole', join(from, 'late'), undefined, AbortSignal.abort(new Error('no')));
    await expect(endless).rejects.toThrow('no');
  });

  test('a parent that is swapped during copies leads nowhere', async () => {
    const { fixture, machine } = get();
    const from = await folder();
    // Some of the ways lead to the whole root inside, with its process table: what is asked for is a fraction of this.
    const limits = { entries: 300, bytes: MIB };
    const secret = join(fixture.folder, 'secret');
    await mkdir(secret, { recursive: true });
    await writeFile(join(secret, 'file'), 'of the host');
    await mkdir(join(from, 'many'));
    for (let i = 0; i < 50; i++) await writeFile(join(from, 'many', `f${i}`), `${i}`);
    const loop = `cd /job/race; while :; do rm -rf a; ln -s ${secret} a; rm a; ln -s /proc/1/root a; rm a; mkdir a; done 2>/dev/null`;
    await shell(machine, 'mkdir -p /job/race/a');
    const racing = await machine.exec({ argv: ['sh', '-c', loop], user: 'root' });
    try {
      for (let i = 0; i < 12; i++) {
        await machine.copyIn(join(from, 'many'), '/job/race/a/many', limits).catch(() => undefined);
        await machine.copyOut('/job/race/a', join(from, `out-${i}`), limits).catch(() => undefined);
      }
    } finally {
      await racing.signal('SIGKILL');
      await racing.exit;
    }
    expect(await readdir(secret)).toEqual(['file']);
    const found = await run('grep', ['-rl', 'of the host', from], { okCodes: [0, 1] });
    expect(found.stdout.toString()).toBe('');
    expect((await ran(machine, ['true'])).exitCode).toBe(0);
  });
}
