import { randomBytes } from 'node:crypto';
import { access, constants, mkdir, readdir, readFile, rmdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, errnoOf, sleep } from '@decant/core';
import { isAccessible, processNamespace, processStart } from '@decant/core/node';

export interface GroupLimits {
  /** Memory with the page cache, in bytes; swap is not used. */
  readonly memoryBytes: number;
  readonly processes: number;
  /** Processors' worth of time. */
  readonly cpus: number;
}

export interface GroupUsage {
  /** Processes that the kernel has killed for want of memory. */
  readonly oomKills: number;
  /** Processes that were not started, because there were too many. */
  readonly refusedProcesses: number;
  /** Processor time so far, in milliseconds. */
  readonly cpuMs: number;
}

/** Control groups for one run. A process joins by writing its id into each of the files. */
export interface ControlGroup extends AsyncDisposable {
  readonly joinFiles: readonly string[];
  /** What to write where, so that all its processes stand still or go on; undefined where that cannot be had. */
  readonly freezer: { readonly file: string; readonly freeze: string; readonly thaw: string } | undefined;
  usage(): Promise<GroupUsage>;
}

/** How the group at this place is stopped and goes on. */
export function freezerAt(place: Hierarchy | undefined): ControlGroup['freezer'] {
  if (place === undefined) return undefined;
  return place.version === 2
    ? { file: join(place.path, 'cgroup.freeze'), freeze: '1', thaw: '0' }
    : { file: join(place.path, 'freezer.state'), freeze: 'FROZEN', thaw: 'THAWED' };
}

/** Where a controller can be used, in either generation. */
interface Hierarchy {
  readonly version: 1 | 2;
  readonly path: string;
}

const CONTROLLERS = ['memory', 'pids', 'cpu', 'cpuacct', 'freezer'] as const;
type Controller = (typeof CONTROLLERS)[number];
const PERIOD_US = 100_000;
/** How long the kernel may take to let go of processes that were killed, in milliseconds. */
const REMOVE_MS = 3000;

export const CONTROL_GROUPS_HINT = 'Run as root, where the control groups memory, pids and cpu can be written to.';

/*
 * decant-NAMESPACE-PID-START-RANDOM: the process that made it, and the process namespace its number is of, so that what killed
 * processes left can be removed, and nothing of those that only cannot be seen from here, such as those outside of a container.
 */
const NAME = /^decant-(\d+)-(\d+)-(\d+)-[0-9a-f]{8}$/;
/** Age after which a group goes although it cannot be told whether its process lives: an empty one, at most. */
const FORGOTTEN_MS = 24 * 60 * 60 * 1000;

/**
 * Makes control groups (version 1, 2 or both mixed) with these limits. What processes that are gone left is removed.
 * @throws JAIL_UNAVAILABLE when memory, processes or processors cannot be limited here.
 */
export async function openControlGroup(limits: GroupLimits): Promise<ControlGroup> {
  const found = await hierarchies();
  const [namespace, start] = await Promise.all([processNamespace(), processStart(process.pid)]);
  const name = `decant-${namespace}-${process.pid}-${start ?? 0}-${randomBytes(4).toString('hex')}`;
  const places = new Map<string, Hierarchy>();
  const of = (controller: Controller) => {
    const hierarchy = found.get(controller);
    return hierarchy === undefined ? undefined : { ...hierarchy, path: join(hierarchy.path, name) };
  };
  for (const controller of CONTROLLERS) {
    const place = of(controller);
    if (place === undefined) {
      if (isNeeded(controller, found)) throw unavailable(`there is no control group for ${controller}`);
      continue;
    }
    places.set(place.path, place);
  }
  const [memory, pids, cpu] = [of('memory')!, of('pids')!, of('cpu')!];
  const accounting = of('cpuacct') ?? cpu;
  // Every group of version 2 can be frozen.
  const freezing = of('freezer') ?? [...places.values()].find(({ version }) => version === 2);
  try {
    const parents = [...new Set([...found.values()].map(({ path }) => path))];
    await allEnded([...parents.map(removeLeftovers), ...[...places.keys()].map((path) => mkdir(path))]);
    const quota = Math.max(1000, Math.round(limits.cpus * PERIOD_US));
    await allEnded([
      limitMemory(memory, limits.memoryBytes),
      writeFile(join(pids.path, 'pids.max'), String(limits.processes)),
      cpu.version === 2
        ? writeFile(join(cpu.path, 'cpu.max'), `${quota} ${PERIOD_US}`)
        : writeFile(join(cpu.path, 'cpu.cfs_quota_us'), String(quota)),
    ]);
  } catch (error) {
    for (const path of places.keys()) await rmdir(path).catch(() => undefined);
    throw unavailable(error instanceof Error ? error.message : String(error), error);
  }
  return {
    joinFiles: [...places.keys()].map((path) => join(path, 'cgroup.procs')),
    freezer: freezerAt(freezing),
    async usage() {
      const oom = await readFile(
        join(memory.path, memory.version === 2 ? 'memory.events' : 'memory.oom_control'),
        'utf8',
      );
      const time = await readFile(
        join(accounting.path, accounting.version === 2 ? 'cpu.stat' : 'cpuacct.usage'),
        'utf8',
      );
      const events = await readFile(join(pids.path, 'pids.events'), 'utf8').catch(() => '');
      const refusedProcesses = Number(/^max (\d+)$/m.exec(events)?.[1] ?? 0);
      const oomKills = Number(/^oom_kill (\d+)$/m.exec(oom)?.[1] ?? 0);
      const cpuMs =
        accounting.version === 2 ? Number(/^usage_usec (\d+)$/m.exec(time)?.[1] ?? 0) / 1000 : Number(time) / 1e6;
      return { oomKills, refusedProcesses, cpuMs };
    },
    async [Symbol.asyncDispose]() {
      for (const path of places.keys()) await removeGroup(path);
    },
  };
}

async function limitMemory({ version, path }: Hierarchy, bytes: number): Promise<void> {
  if (version === 2) {
    await writeFile(join(path, 'memory.max'), String(bytes));
    await writeIfThere(join(path, 'memory.swap.max'), '0');
  } else {
    await writeFile(join(path, 'memory.limit_in_bytes'), String(bytes));
    await writeIfThere(join(path, 'memory.memsw.limit_in_bytes'), String(bytes));
  }
}

/** All of them have ended when this settles, so that what one made can be removed when another failed. */
async function allEnded(works: readonly Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}

/** The controllers that {@link openControlGroup} needs and would not have, as far as can be told without making a group. */
export async function missingControllers(): Promise<readonly string[]> {
  const found = await hierarchies();
  const missing: Controller[] = [];
  for (const controller of CONTROLLERS) {
    if (!isNeeded(controller, found)) continue;
    const place = found.get(controller);
    const usable = place !== undefined && (await isAccessible(place.path, constants.W_OK));
    if (!usable) missing.push(controller);
  }
  return missing;
}

function isNeeded(controller: Controller, found: ReadonlyMap<Controller, Hierarchy>): boolean {
  return controller !== 'freezer' && !(controller === 'cpuacct' && found.get('cpu')?.version === 2);
}

/** Removes the groups of processes that have ended without it. Those of living ones stay. */
export async function removeControlGroups(): Promise<void> {
  const parents = new Set([...(await hierarchies()).values()].map(({ path }) => path));
  for (const parent of parents) await removeLeftovers(parent);
}

async function hierarchies(): Promise<ReadonlyMap<Controller, Hierarchy>> {
  const found = new Map<Controller, Hierarchy | Promise<Hierarchy>>();
  const [mounts, own] = await Promise.all([
    readFile('/proc/self/mounts', 'utf8').catch(() => ''),
    readFile('/proc/self/cgroup', 'utf8').catch(() => ''),
  ]);
  for (const line of mounts.split('\n')) {
    const [, path = '', type, options = ''] = line.split(' ');
    if (type === 'cgroup') {
      for (const controller of CONTROLLERS) {
        if (!options.split(',').includes(controller)) continue;
        found.set(
          controller,
          ownGroup(path, controller, own).then((group) => ({ version: 1, path: group })),
        );
      }
    } else if (type === 'cgroup2') {
      const enabled = await enable(path);
      for (const controller of CONTROLLERS) {
        if (enabled.has(controller) && !found.has(controller)) found.set(controller, { version: 2, path });
      }
    }
  }
  return new Map(await Promise.all([...found].map(async ([name, hierarchy]) => [name, await hierarchy] as const)));
}

/** The group this process is in, so that whatever limits it counts below as well; the root when it is not shown. */
async function ownGroup(mount: string, controller: string, own: string): Promise<string> {
  const line = own.split('\n').find((text) => text.split(':')[1]?.split(',').includes(controller) === true);
  const path = join(mount, line?.split(':').slice(2).join(':') ?? '/');
  return access(path).then(
    () => path,
    () => mount,
  );
}

/** Controllers that groups below the root of a version 2 hierarchy have, or can be given. */
async function enable(root: string): Promise<ReadonlySet<string>> {
  const file = join(root, 'cgroup.subtree_control');
  const words = async (name: string) =>
    (await readFile(join(root, name), 'utf8').catch(() => '')).split(/\s+/).filter((word) => word !== '');
  for (const controller of await words('cgroup.controllers')) {
    if (!['memory', 'pids', 'cpu'].includes(controller)) continue;
    // In a container whose processes are in the root group this is refused: the controller then counts as absent.
    await writeFile(file, `+${controller}`).catch(() => undefined);
  }
  return new Set(await words('cgroup.subtree_control'));
}

async function writeIfThere(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text, { flag: 'r+' });
  } catch (error) {
    // Kernels without swap accounting do not have the file, or refuse to use it.
    if (!['ENOENT', 'EOPNOTSUPP', 'EINVAL'].includes(errnoOf(error) ?? '')) throw error;
  }
}

async function removeGroup(path: string): Promise<void> {
  const deadline = performance.now() + REMOVE_MS;
  let pauseMs = 1;
  for (;;) {
    try {
      await rmdir(path);
      return;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      // The next run removes it; an empty group costs nothing.
      if (errnoOf(error) !== 'EBUSY' || performance.now() > deadline) return;
    }
    await sleep(pauseMs);
    pauseMs = Math.min(2 * pauseMs, 20);
  }
}

async function removeLeftovers(parent: string): Promise<void> {
  const here = await processNamespace();
  for (const name of await readdir(parent)) {
    const [, namespace, pid, start] = NAME.exec(name) ?? [];
    if (pid === undefined) continue;
    const lives = namespace === here ? (await processStart(Number(pid))) === start : await isFresh(join(parent, name));
    if (lives) continue;
    // What was frozen when its maker was killed waits to end.
    await writeFile(join(parent, name, 'freezer.state'), 'THAWED', { flag: 'r+' }).catch(() => undefined);
    await rmdir(join(parent, name)).catch(() => undefined);
  }
}

async function isFresh(path: string): Promise<boolean> {
  const info = await stat(path).catch(() => undefined);
  return info === undefined || Date.now() - info.mtimeMs < FORGOTTEN_MS;
}

function unavailable(why: string, cause?: unknown): DecantError {
  return new DecantError('JAIL_UNAVAILABLE', `Memory and processes cannot be limited on this machine: ${why}.`, {
    hint: CONTROL_GROUPS_HINT,
    ...(cause === undefined ? {} : { cause }),
  });
}
