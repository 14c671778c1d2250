import { MIB } from '@decant/core';

import { GUEST_FDS } from './init-program.ts';
import type { ImageUser } from './user.ts';

/** What root in the image may do, within its own namespaces: what package managers and daemons commonly need. */
const ROOT_CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_NET_BIND_SERVICE',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
] as const;

const SHM_BYTES = 64 * MIB;

export interface GuestOptions {
  /** Host path of the mounted root. */
  readonly root: string;
  readonly user: ImageUser;
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  readonly hostname: string;
  /** Keeps the caller's terminal; otherwise the guest gets a session of its own. */
  readonly terminal: boolean;
}

/** bubblewrap's options for a guest, to be given by `--args`: environment and paths stay out of process lists. */
export function guestArguments(options: GuestOptions): string[] {
  const { user } = options;
  const args = ['--userns', `${GUEST_FDS.userNamespace}`];
  args.push('--unshare-net', '--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-cgroup-try');
  args.push('--hostname', options.hostname, '--uid', `${user.uid}`, '--gid', `${user.gid}`);
  args.push('--bind', options.root, '/', '--proc', '/proc', '--dev', '/dev');
  args.push('--perms', '1777', '--size', `${SHM_BYTES}`, '--tmpfs', '/dev/shm', '--remount-ro', '/dev');
  args.push('--cap-drop', 'ALL');
  // bubblewrap would make capabilities of other users ambient, which no container engine does.
  if (user.uid === 0) for (const name of ROOT_CAPABILITIES) args.push('--cap-add', name);
  args.push('--clearenv');
  for (const [name, value] of Object.entries(options.env)) args.push('--setenv', name, value);
  args.push('--chdir', options.workingDir, '--die-with-parent');
  if (!options.terminal) args.push('--new-session');
  args.push('--seccomp', `${GUEST_FDS.seccomp}`, '--json-status-fd', `${GUEST_FDS.status}`);
  return args;
}
