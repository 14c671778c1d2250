import { realpath } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

import { DecantError, isDecantError } from '@decant/core';
import { run } from '@decant/core/node';

import { dockerDriver, type DockerFacts, type DockerOptions } from './docker.ts';
import type { BuilderDriver, BuilderName, CallOptions } from './driver.ts';
import { architectureOf } from './image-archive.ts';
import { probeStorage } from './detect-storage.ts';
import { lastLinesOf } from './process-output.ts';
import { BUILDAH, PODMAN, type StorageOptions } from './storage-engine.ts';

/** A build engine found on this machine: a driver, or why it cannot be used. */
export type DetectedBuilder =
  | { readonly usable: true; readonly name: BuilderName; readonly program: string; readonly driver: BuilderDriver }
  | {
      readonly usable: false;
      readonly name: BuilderName;
      readonly program: string;
      /** One sentence. */
      readonly reason: string;
      readonly hint?: string | undefined;
    };

export interface DetectOptions extends CallOptions {
  /** Variables for docker, for example DOCKER_HOST. */
  readonly docker?: { readonly env?: Readonly<Record<string, string>> | undefined } | undefined;
  readonly buildah?: StorageOptions | undefined;
  readonly podman?: StorageOptions | undefined;
}

/** Milliseconds that each probe of an engine may take: its program has tens of megabytes, and a slow disk may be cold. */
const PROBE_TIMEOUT_MS = 30_000;

/** Every docker client, buildah and podman on this machine, asked in a bounded time; nothing is built. */
export async function detectBuilders(options: DetectOptions = {}): Promise<DetectedBuilder[]> {
  const { signal } = options;
  const clients = await dockerClients();
  const [dockers, buildah, podman] = await Promise.all([
    Promise.all(clients.map((program) => probeDocker({ program, env: options.docker?.env }, { signal }))),
    probeStorage(BUILDAH, options.buildah ?? {}, { signal }),
    probeStorage(PODMAN, options.podman ?? {}, { signal }),
  ]);
  return [...dockers.flat(), ...buildah, ...podman];
}

async function dockerClients(): Promise<string[]> {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/bin', '/usr/local/bin'];
  const programs = new Map<string, string>();
  for (const folder of folders.filter((name) => name !== '')) {
    const path = join(folder, 'docker');
    const real = await realpath(path).catch(() => undefined);
    if (real !== undefined && !programs.has(real)) programs.set(real, path);
  }
  return [...programs.values()];
}

/** What one docker client can do: BuildKit when it has that, and the classic builder. */
export async function probeDocker(options: DockerOptions, { signal }: CallOptions = {}): Promise<DetectedBuilder[]> {
  const { program } = options;
  const ask = (args: readonly string[], env: Record<string, string> = {}) =>
    run(program, args, { env: { ...process.env, ...options.env, ...env }, timeoutMs: PROBE_TIMEOUT_MS, signal });
  let server: { Version?: string; Arch?: string } | null | undefined;
  try {
    const { stdout } = await ask(['version', '--format', '{{json .}}']);
    server = (JSON.parse(stdout.toString()) as { Server?: { Version?: string; Arch?: string } | null }).Server;
  } catch (error) {
    signal?.throwIfAborted();
    return [{ usable: false, name: 'docker', program, ...whyNoDaemon(error) }];
  }
  const architecture = architectureOf(server?.Arch ?? '');
  if (server?.Version === undefined || architecture === undefined) {
    const reason = `The docker daemon is of an architecture (${server?.Arch ?? 'unknown'}) that decant does not build for.`;
    return [{ usable: false, name: 'docker', program, reason }];
  }
  const help = await ask(['build', '--help'], { DOCKER_BUILDKIT: '1' }).catch((error: unknown) => {
    signal?.throwIfAborted();
    return error;
  });
  const flags = isResult(help) ? flagsOf(help.stdout.toString()) : new Set<string>();
  const buildkit = flags.has('--secret');
  const facts: DockerFacts = {
    serverVersion: server.Version,
    architecture,
    buildkitFlags: buildkit ? flags : undefined,
  };
  const usable = (name: 'docker-buildkit' | 'docker'): DetectedBuilder => ({
    usable: true,
    name,
    program,
    driver: dockerDriver(name, facts, options),
  });
  if (buildkit) return [usable('docker-buildkit'), usable('docker')];
  const reason = `The client ${program} has no BuildKit.`;
  const hint = 'Install the buildx plug-in of docker.';
  return [{ usable: false, name: 'docker-buildkit', program, reason, hint }, usable('docker')];
}

function isResult(value: unknown): value is { stdout: Buffer } {
  return !(value instanceof Error);
}

/** The long options that a help text lists. */
export function flagsOf(help: string): Set<string> {
  return new Set([...help.matchAll(/^\s+(?:-\w, )?(--[a-z][a-z-]*)/gm)].map((match) => match[1]!));
}

function whyNoDaemon(error: unknown): { reason: string; hint?: string } {
  const text = lastLinesOf(error);
  if (isDecantError(error, 'TIMEOUT')) return { reason: 'The docker daemon does not answer in time.' };
  if (/permission denied/i.test(text)) {
    return { reason: 'You may not use the docker daemon.', hint: 'Join the group docker, or run as root.' };
  }
  if (/cannot connect|no such file|connection refused|error during connect/i.test(text)) {
    const hint =
      process.platform === 'linux' ? 'Start it (systemctl start docker), or set DOCKER_HOST.' : 'Start Docker Desktop.';
    return { reason: 'The docker daemon does not run.', hint };
  }
  return { reason: `The docker client fails: ${text.split('\n').at(-1) ?? ''}` };
}

/** The error for want of a usable engine, with what was found and what to do; `wanted` when only one would do. */
export function noEngine(detected: readonly DetectedBuilder[], wanted?: BuilderName): DecantError {
  const unusable = detected.filter((builder) => !builder.usable);
  const reasons = unusable.map(({ program, reason }) => `${program}: ${reason}`);
  const packages = {
    docker: 'docker.io',
    'docker-buildkit': 'docker.io',
    buildah: 'buildah runc uidmap',
    podman: 'podman runc uidmap',
  };
  const install =
    process.platform === 'linux'
      ? `On Debian or Ubuntu: apt-get install -y --no-install-recommends ${packages[wanted ?? 'buildah']}`
      : 'Install Docker Desktop: https://docs.docker.com/desktop/';
  const hint = unusable.find((builder) => builder.hint !== undefined)?.hint ?? install;
  const what =
    wanted === undefined ? 'No build engine (docker, buildah, podman) can' : `The build engine ${wanted} cannot`;
  const message = [`${what} be used on this machine.`, ...reasons].join(' ');
  return new DecantError('BUILD_ENGINE_MISSING', message, { hint, details: { reasons } });
}
