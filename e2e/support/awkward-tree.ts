import { Buffer } from 'node:buffer';
import { chmod, chown, link, lutimes, mkdir, open, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { tool } from './programs.ts';

/** Makes a folder with one of everything that images lose easily, and an archive of it. Needs root. */
export async function awkwardLayer(folder: string, tar: string): Promise<void> {
  const root = join(folder, 'awkward');
  const inside = (name: string) => join(root, 'awkward', name);
  await mkdir(inside('deep/er'), { recursive: true });
  await chmod(root, 0o755);
  await chmod(join(root, 'awkward'), 0o755);
  const put = async (name: string, data: string, mode = 0o644) => {
    await writeFile(inside(name), data);
    await chmod(inside(name), mode);
  };
  await put('setuid', 'setuid', 0o4755);
  await put('setgid', 'setgid', 0o2755);
  await mkdir(inside('sticky'));
  await chmod(inside('sticky'), 0o1777);
  await put('unreadable', 'no mode at all', 0);
  await put('large-owner', 'owner');
  await chown(inside('large-owner'), 4_000_000_000, 3_000_000_000);
  await put('capable', 'capable', 0o755);
  // struct vfs_cap_data, version 2: CAP_NET_BIND_SERVICE and CAP_NET_RAW, permitted and effective.
  const capabilities = `0x01000002${'00240000'.padEnd(32, '0')}`;
  await tool('setfattr', ['-n', 'security.capability', '-v', capabilities, inside('capable')]);
  await put('listed', 'with an access list', 0o640);
  await tool('setfacl', ['-m', 'u:1234:rw,g:4321:r', inside('listed')]);
  await mkdir(inside('list-folder'));
  await tool('setfacl', ['-m', 'd:u:1234:rwx', inside('list-folder')]);
  await put('attributed', 'attributes');
  await tool('setfattr', ['-n', 'user.empty', inside('attributed')]);
  await tool('setfattr', ['-n', 'user.binary', '-v', '0x00ff0a3d00', inside('attributed')]);
  await tool('setfattr', ['-n', 'user.long', '-v', `0x${'ab'.repeat(1500)}`, inside('attributed')]);
  await put('linked', 'one inode');
  await link(inside('linked'), inside('deep/linked'));
  await link(inside('linked'), inside('deep/er/linked'));
  await symlink('../linked', inside('deep/relative'));
  await symlink('/etc/passwd', inside('absolute'));
  await symlink('t'.repeat(1000), inside('long-target'));
  await symlink('nowhere', inside('dangling'));
  await tool('mknod', [inside('null'), 'c', '1', '3']);
  await tool('mknod', [inside('large-numbers'), 'c', '4095', '1048575']);
  await tool('mknod', [inside('block'), 'b', '8', '17']);
  await tool('mkfifo', [inside('fifo')]);
  await put('empty', '');
  await put('n'.repeat(255), 'a long name');
  await put('new\nline and "quotes" \\ back', 'odd');
  const bytesName = Buffer.concat([Buffer.from(`${root}/awkward/latin-`), Buffer.from([0xe9, 0xff, 0xfe])]);
  await writeFile(bytesName, 'not UTF-8');
  const chain = Array.from({ length: 20 }, (_, i) => `${i}-${'d'.repeat(40)}`).join('/');
  await mkdir(inside(chain), { recursive: true });
  await put(`${chain}/bottom`, 'a path of over 800 bytes');
  await mkdir(inside('many'));
  for (let i = 0; i < 1500; i++) await writeFile(inside(`many/entry-${i * 31}`), `${i}`);
  const sparse = await open(inside('sparse'), 'w');
  await sparse.write('first', 0);
  await sparse.write('middle', 40_000_001);
  await sparse.truncate(90_000_003);
  await sparse.close();
  await put('page', 'p'.repeat(4096));
  await put('page-and-one', 'p'.repeat(4097));
  await put('old', 'before 1970');
  await utimes(inside('old'), -86_400 * 365, -86_400 * 365);
  await put('late', 'after 2038');
  await utimes(inside('late'), 5_000_000_000, 5_000_000_000);
  await lutimes(inside('dangling'), 1_000_000_000, 1_000_000_000);
  for (const [name, time] of [
    ['setuid', '2024-02-29 12:34:56.123456789 UTC'],
    ['fifo', '2001-09-09 01:46:40.000000001 UTC'],
    ['sticky', '1999-12-31 23:59:59.999999999 UTC'],
  ] as const) {
    await tool('touch', ['-d', time, inside(name)]);
  }
  // What a layer takes away again, and a folder it hides.
  await mkdir(join(root, 'usr/share/doc'), { recursive: true });
  await writeFile(join(root, 'usr/share/doc/.wh.dpkg'), '');
  await mkdir(join(root, 'usr/share/lintian'), { recursive: true });
  await writeFile(join(root, 'usr/share/lintian/.wh..wh..opq'), '');
  await writeFile(join(root, 'usr/share/lintian/instead'), 'what was here is hidden');
  await tool('tar', [
    ...['--create', '--format=pax', '--xattrs', '--xattrs-include=*', '--numeric-owner', '--sort=name'],
    ...[`--file=${tar}`, `--directory=${root}`, '.'],
  ]);
}
