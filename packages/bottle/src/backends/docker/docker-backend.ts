import { release } from 'node:os';

import { DecantError, isDecantError } from '@decant/core';
import { checkMounts, controlGroupOf, openSandbox, probeJail } from '@decant/jail';
import { z } from 'zod';

import type { Backend, BackendReport, MachineRequest, PreparedMachine, ResourceStack } from '../backend.ts';
import { machineOf } from '../sandbox-machine.ts';
import { containerName, removeContainer, startContainer } from './container.ts';
import { openEngine, refusal, socketOf } from './engine.ts';

export interface DockerBackendOptions {
  /** Address of the daemon; default: the variable DOCKER_HOST, else the usual socket. Only `unix://` addresses will do. */
  readonly host?: string | undefined;
  /** Folders that no mount may show: where decant keeps its images, keys and bottles. */
  readonly hiddenFolders?: readonly string[] | undefined;
}

const CLAIM = 'docker-container';
/** Processes and mounts of this process, which end with it. */
const MACHINE_CLAIM = 'docker-machine';
const WEAKNESSES = [
  'The Docker daemon and everyone who may use its socket can look into the bottle, stop it and lift its limits.',
  'When decant is killed the processes end, and the empty container stays until decant bottle gc.',
];

/**
 * Bottles in containers of a Docker daemon of this machine: the container gives the process, IPC, host name and network
 * namespaces and the control groups; the image, its write layer and the mapped ids are those of the native backend.
 */
export function dockerBackend({ host, hiddenFolders = [] }: DockerBackendOptions = {}): Backend {
  const address = () => host ?? process.env['DOCKER_HOST'];
  return {
    name: 'docker',
    probe: (signal) => probeDocker(address(), signal),
    prepare: (request, stack) => prepare(socketOf(address()), request, stack, hiddenFolders),
    async reap({ kind, name, socket }) {
      if (kind === CLAIM) await removeContainer(openEngine(String(socket)), String(name));
    },
  };
}

async function prepare(
  socket: string,
  { slug, image, hostname, mounts, limits, stateDirectory, signal }: MachineRequest,
  stack: ResourceStack,
  hiddenFolders: readonly string[],
): Promise<PreparedMachine> {
  const engine = openEngine(socket);
  const name = containerName(slug);
  await checkMounts(mounts, hiddenFolders);
  const container = await stack.enter(
    { kind: CLAIM, name, socket },
    async () => {
      try {
        return await startContainer(engine, { name, slug, limits, signal });
      } catch (error) {
        await removeContainer(engine, name).catch(() => undefined);
        throw error;
      }
    },
    () => removeContainer(engine, name),
  );
  const { pid, start } = container;
  const own = `/proc/${pid}/ns/net`;
  return {
    network: { path: own },
    async start({ networkNamespace }) {
      const sandbox = await stack.enter(
        { kind: MACHINE_CLAIM, slug },
        async () =>
          openSandbox({
            ...{ disk: image.disk, filesystem: image.filesystem, user: image.config.User },
            ...{ hostname, networkNamespace: networkNamespace ?? own, mounts, stateDirectory, hiddenFolders, signal },
            writeLayer: { kind: 'disk', bytes: limits.diskBytes },
            limits: { memoryBytes: limits.memoryBytes, processes: limits.processes, cpus: limits.cpus },
            container: { pid, start, group: await controlGroupOf(pid) },
          }),
        async (opened) => {
          await opened[Symbol.asyncDispose]();
        },
      );
      return machineOf(sandbox, image.config);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

const infoSchema = z.object({
  OSType: z.string(),
  KernelVersion: z.string(),
  SecurityOptions: z.array(z.string()).nullish(),
  Runtimes: z.record(z.string(), z.unknown()),
  MemoryLimit: z.boolean(),
  PidsLimit: z.boolean().optional(),
  CpuCfsQuota: z.boolean().optional(),
});

async function probeDocker(host: string | undefined, signal?: AbortSignal): Promise<BackendReport> {
  const { ok, checks } = await probeJail({ signal });
  const reasons = checks.filter((check) => !check.ok && !ok).map(({ why = '', mend = '' }) => `${why} ${mend}`.trim());
  try {
    reasons.push(...(await reasonsAgainst(socketOf(host), signal)));
  } catch (error) {
    signal?.throwIfAborted();
    if (!isDecantError(error)) throw error;
    reasons.push([error.message, error.hint ?? ''].join(' ').trim());
  }
  return { usable: reasons.length === 0, reasons, weaknesses: WEAKNESSES };
}

async function reasonsAgainst(socket: string, signal: AbortSignal | undefined): Promise<string[]> {
  const answer = await openEngine(socket).call({ method: 'GET', path: '/info', signal });
  if (answer.status !== 200) throw refusal('tell about itself', answer);
  const info = infoSchema.safeParse(answer.body);
  if (!info.success) {
    throw new DecantError('JAIL_UNAVAILABLE', `What answers at ${socket} is no Docker daemon.`, { cause: info.error });
  }
  const { OSType, KernelVersion, SecurityOptions, Runtimes, MemoryLimit, PidsLimit, CpuCfsQuota } = info.data;
  const reasons: string[] = [];
  if (OSType !== 'linux' || KernelVersion !== release()) {
    reasons.push(`The Docker daemon runs on another kernel (${KernelVersion}). Use a daemon of this machine itself.`);
  }
  if (SecurityOptions?.some((option) => option.startsWith('name=rootless')) === true) {
    reasons.push('The Docker daemon runs without root, so its limits may not hold. Use one that runs as root.');
  }
  if (!Object.hasOwn(Runtimes, 'runc')) reasons.push('The Docker daemon has no runtime runc. Configure it.');
  if (!MemoryLimit || PidsLimit === false || CpuCfsQuota === false) {
    reasons.push('The Docker daemon cannot limit memory, processes and processors. Enable these control groups.');
  }
  return reasons;
}
