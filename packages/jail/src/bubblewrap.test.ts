import { expect, test } from 'vitest';

import { guestArguments } from './bubblewrap.ts';

const base = { root: '/r', env: {}, workingDir: '/', hostname: 'h', terminal: false };
const user = (uid: number) => ({ uid, gid: uid, groups: [], home: '/' });

test('every namespace is its own and the only host path is the root', () => {
  const args = guestArguments({ ...base, user: user(0) });
  for (const flag of ['--unshare-net', '--unshare-pid', '--unshare-ipc', '--unshare-uts', '--clearenv', '--seccomp']) {
    expect(args).toContain(flag);
  }
  expect(args.filter((arg) => arg.includes('bind'))).toEqual(['--bind']);
  expect(args[args.indexOf('--bind') + 1]).toBe('/r');
});

test('only root has capabilities, and none that reach outside', () => {
  const root = guestArguments({ ...base, user: user(0) });
  expect(root.indexOf('--cap-drop')).toBeLessThan(root.indexOf('--cap-add'));
  for (const name of ['CAP_SYS_ADMIN', 'CAP_SYS_PTRACE', 'CAP_NET_ADMIN', 'CAP_MKNOD'])
    expect(root).not.toContain(name);
  expect(guestArguments({ ...base, user: user(5) })).not.toContain('--cap-add');
});

test('values that look like options stay values', () => {
  const args = guestArguments({ ...base, user: user(0), env: { A: '--bind' }, workingDir: '/--dev' });
  expect(args[args.indexOf('A') - 1]).toBe('--setenv');
  expect(args[args.indexOf('--chdir') + 1]).toBe('/--dev');
});

test('a guest without the terminal has a session of its own', () => {
  expect(guestArguments({ ...base, user: user(0) })).toContain('--new-session');
  expect(guestArguments({ ...base, user: user(0), terminal: true })).not.toContain('--new-session');
});
