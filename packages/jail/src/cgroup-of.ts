import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError } from '@decant/core';
import { isAccessible } from '@decant/core/node';

import { freezerAt, type ControlGroup } from './cgroup.ts';

/** What has to be bounded for a process to count as bounded. */
const NEEDED = ['memory', 'pids', 'cpu'] as const;

/**
 * The control groups (version 1, 2 or both mixed) that another program has put a process into, so that more can join.
 * @throws JAIL_UNAVAILABLE when they cannot be reached from here, or do not bound memory, processes and processors.
 */
export async function controlGroupOf(pid: number): Promise<Pick<ControlGroup, 'joinFiles' | 'freezer'>> {
  const [groups, mounts] = await Promise.all([
    readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => ''),
    readFile('/proc/self/mountinfo', 'utf8'),
  ]);
  const found: { readonly path: string; readonly controllers: readonly string[]; readonly version: 1 | 2 }[] = [];
  for (const line of groups.split('\n')) {
    const [, names, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    // A path that leads up is one outside of what this process is shown.
    if (names === undefined || path === undefined || path === '/' || path.split('/').includes('..')) continue;
    const mount = mountOf(mounts, names);
    if (mount === undefined) continue;
    const folder = join(mount, path);
    if (!(await isAccessible(join(folder, 'cgroup.procs')))) continue;
    const list = names === '' ? await readFile(join(folder, 'cgroup.controllers'), 'utf8').catch(() => '') : names;
    found.push({ path: folder, controllers: list.trim().split(/[\s,]+/), version: names === '' ? 2 : 1 });
  }
  const missing = NEEDED.filter((name) => !found.some(({ controllers }) => controllers.includes(name)));
  if (missing.length > 0) {
    throw new DecantError(
      'JAIL_UNAVAILABLE',
      `The control groups of process ${pid} for ${missing.join(', ')} cannot be reached.`,
      { hint: 'Run where the control groups of the whole machine are mounted, not in a container.' },
    );
  }
  const freezing =
    found.find(({ controllers }) => controllers.includes('freezer')) ?? found.find(({ version }) => version === 2);
  return {
    joinFiles: found.map(({ path }) => join(path, 'cgroup.procs')),
    freezer: freezerAt(freezing),
  };
}

/** Where the hierarchy of these controllers is mounted as a whole; without names, that of version 2. */
function mountOf(mounts: string, names: string): string | undefined {
  for (const line of mounts.split('\n')) {
    const [before = '', after = ''] = line.split(' - ');
    const [, , , root, path] = before.split(' ');
    const [type, , options = ''] = after.split(' ');
    if (root !== '/' || path === undefined) continue;
    if (names === '' ? type === 'cgroup2' : type === 'cgroup' && hasAll(options.split(','), names.split(',')))
      return path;
  }
  return undefined;
}

function hasAll(options: readonly string[], names: readonly string[]): boolean {
  return names.every((name) => options.includes(name));
}
