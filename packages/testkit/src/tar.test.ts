import { execFileSync } from 'node:child_process';

import { expect, it } from 'vitest';

import { makeTar } from './tar.ts';

it('makes archives that GNU tar reads', () => {
  const archive = makeTar([
    { path: 'folder/', type: 'directory', mtimeSeconds: 1 },
    { path: 'folder/file', data: 'hello\n', uid: 7, gid: 8, mode: 0o4755, mtimeSeconds: 1 },
    { path: 'folder/link', type: 'symlink', linkTarget: 'file', mode: 0o777, mtimeSeconds: 1 },
    { path: 'folder/again', type: 'hardlink', linkTarget: 'folder/file', mtimeSeconds: 1 },
  ]);
  const env = { ...process.env, TZ: 'UTC', LC_ALL: 'C' };
  const listing = execFileSync('tar', ['-tv', '--numeric-owner', '--full-time'], { input: archive, env }).toString();
  expect(listing.trim().split('\n')).toEqual([
    'drwxr-xr-x 0/0               0 1970-01-01 00:00:01 folder/',
    '-rwsr-xr-x 7/8               6 1970-01-01 00:00:01 folder/file',
    'lrwxrwxrwx 0/0               0 1970-01-01 00:00:01 folder/link -> file',
    'hrw-r--r-- 0/0               0 1970-01-01 00:00:01 folder/again link to folder/file',
  ]);
  expect(execFileSync('tar', ['-xO', 'folder/file'], { input: archive }).toString()).toBe('hello\n');
});

it('refuses names that do not fit', () => {
  expect(() => makeTar([{ path: 'x'.repeat(101) }])).toThrow(RangeError);
});
