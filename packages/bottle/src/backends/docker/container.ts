import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';

import { DecantError, sleep } from '@decant/core';
import { processStart } from '@decant/core/node';
import { z } from 'zod';

import type { BottleLimits } from '../backend.ts';
import { refusal, type Engine } from './engine.ts';
import { idleImage } from './idle-image.ts';

const PERIOD_US = 100_000;
const REMOVE_MS = 20_000;
const REMOVE_POLL_MS = 100;

const createdSchema = z.object({ Id: z.string().regex(/^[0-9a-f]{64}$/) });
const inspectedSchema = z.object({
  State: z.object({ Running: z.boolean(), Pid: z.int().nonnegative() }),
});

/** A container in which nothing runs but the program that waits. */
export interface IdleContainer {
  readonly name: string;
  /** Its first process as this machine counts it, and when it started. */
  readonly pid: number;
  readonly start: string;
}

/** A name that no other container has. */
export function containerName(slug: string): string {
  return `decant-${slug}-${randomBytes(6).toString('hex')}`;
}

/**
 * Starts a container of this name without network, rights or anything of the bottle's image, bounded by the bottle's limits.
 * @throws JAIL_UNAVAILABLE when the daemon's processes are not those of this machine, JAIL_FAILED when it refuses.
 */
export async function startContainer(
  engine: Engine,
  {
    name,
    slug,
    limits,
    signal,
  }: {
    readonly name: string;
    readonly slug: string;
    readonly limits: BottleLimits;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<IdleContainer> {
  const image = idleImage();
  const create = () =>
    engine.call({
      ...{ method: 'POST', path: `/containers/create?name=${encodeURIComponent(name)}`, signal },
      json: containerOf(image.reference, slug, limits),
    });
  let created = await create();
  if (created.status === 404) {
    const loaded = await engine.call({ method: 'POST', path: '/images/load?quiet=1', tar: image.archive, signal });
    if (loaded.status !== 200) throw refusal('load an image of one program', loaded);
    created = await create();
  }
  if (created.status !== 201) throw refusal('make a container', created);
  const { Id: id } = createdSchema.parse(created.body);
  const started = await engine.call({ method: 'POST', path: `/containers/${id}/start`, signal });
  if (started.status !== 204) throw refusal('start a container', started);
  const inspected = await engine.call({ method: 'GET', path: `/containers/${id}/json`, signal });
  if (inspected.status !== 200) throw refusal('show a container', inspected);
  const { Running: running, Pid: pid } = inspectedSchema.parse(inspected.body).State;
  if (!running || pid === 0) throw new DecantError('JAIL_FAILED', `The container ${name} ended as soon as it started.`);
  const start = await processStart(pid);
  const groups = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '');
  // The number of a process on another machine, or in another process namespace, means nothing here.
  if (start === undefined || !groups.includes(id)) {
    throw new DecantError('JAIL_UNAVAILABLE', "The Docker daemon's containers do not run on this machine.", {
      hint: 'Use a daemon of this machine itself, not one in a virtual machine, and do not run decant in a container.',
    });
  }
  return { name, pid, start };
}

function containerOf(reference: string, slug: string, { memoryBytes, processes, cpus }: BottleLimits): object {
  return {
    Image: reference,
    Labels: { 'dev.decant.bottle': slug, 'dev.decant.owner': String(process.pid) },
    // The program that waits hears no other signal; a daemon that stops is not to wait for it.
    StopSignal: 'SIGKILL',
    HostConfig: {
      NetworkMode: 'none',
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges:true'],
      ReadonlyRootfs: true,
      Privileged: false,
      Runtime: 'runc',
      IpcMode: 'private',
      Memory: memoryBytes,
      MemorySwap: memoryBytes,
      // The program that waits is one of them.
      PidsLimit: processes + 1,
      CpuPeriod: PERIOD_US,
      CpuQuota: Math.max(1000, Math.round(cpus * PERIOD_US)),
      RestartPolicy: { Name: 'no' },
      LogConfig: { Type: 'none' },
    },
  };
}

/** Kills and removes a container; one that is not there is gone. */
export async function removeContainer(engine: Engine, name: string): Promise<void> {
  const deadline = performance.now() + REMOVE_MS;
  for (;;) {
    const path = `/containers/${encodeURIComponent(name)}?force=true&v=true`;
    const removed = await engine.call({ method: 'DELETE', path });
    if (removed.status === 204 || removed.status === 404) return;
    // Somebody else removes it at the same time, or the kernel has not let go of it yet.
    if (![409, 500].includes(removed.status) || performance.now() > deadline) {
      throw refusal(`remove the container ${name}`, removed);
    }
    await sleep(REMOVE_POLL_MS);
  }
}
