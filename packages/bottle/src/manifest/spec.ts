import { resolve } from 'node:path/posix';

import { DecantError, GIB, quote } from '@decant/core';

import type { Mount } from '../backends/backend.ts';
import { portsOf } from '../fence/ports.ts';
import { policyProblems } from '../net/compiled-policy.ts';
import type { Route } from '../net/policy.ts';
import type { BottleSpec } from '../plan/plan.ts';
import { slugBase } from '../plan/slug.ts';
import { parseResolver } from './resolver.ts';
import type { EnvironmentSource, Manifest, ManifestRoute } from './schema.ts';

export const DEFAULT_LIMITS = {
  cpus: 2,
  memoryBytes: 2 * GIB,
  processes: 1024,
  diskBytes: 2 * GIB,
  wallTimeMs: 8 * 3_600_000,
} as const;

export interface SpecResult {
  readonly spec: BottleSpec;
  /** Where the values of the agent's variables come from; they stand in no plan. */
  readonly environment: Readonly<Record<string, EnvironmentSource>>;
}

/**
 * Fills in what a manifest (or the flags of a command line, in the same form) leaves open, and checks what only shows in
 * the whole.
 * @throws CONFIG_INVALID, NAME_INVALID
 */
export function specOf(manifest: Manifest, where = 'The bottle'): SpecResult {
  const refuse = (problem: string) => new DecantError('CONFIG_INVALID', `${where}: ${problem}`);
  const { name, image, egress = {}, limits = {}, agent = {} } = manifest;
  if (name === undefined) throw refuse('it has no name.');
  slugBase(name);
  if (image === undefined) throw refuse('it names no image.');
  const policy = { routes: routesOf(egress.routes ?? []), deny: egress.deny ?? [] };
  const [problem] = policyProblems(policy);
  if (problem !== undefined) throw refuse(problem);
  portsOf(policy);
  if (egress.sealed === true && policy.routes.length > 0) {
    throw refuse('its network is sealed, and it has routes.');
  }
  const environment = agent.env ?? {};
  if (agent.prompt === undefined && agent.promptMode !== undefined) {
    throw refuse(`it has the prompt mode ${agent.promptMode}, and no prompt.`);
  }
  const spec: BottleSpec = {
    name,
    image,
    backend: manifest.backend ?? 'native',
    egress: {
      ...(egress.sealed === true ? { sealed: true } : {}),
      policy,
      resolvers: (egress.resolvers ?? []).map((text) => {
        const resolver = parseResolver(text);
        if (resolver === undefined) throw refuse(`${quote(text)} is no resolver.`);
        return resolver;
      }),
      upstreamCaFile: egress.upstreamCaFile,
    },
    mounts: mountsOf(manifest.mounts ?? [], refuse),
    limits: {
      cpus: limits.cpus ?? DEFAULT_LIMITS.cpus,
      memoryBytes: limits.memory ?? DEFAULT_LIMITS.memoryBytes,
      processes: limits.processes ?? DEFAULT_LIMITS.processes,
      diskBytes: limits.disk ?? DEFAULT_LIMITS.diskBytes,
      wallTimeMs: limits.wallTime ?? DEFAULT_LIMITS.wallTimeMs,
    },
    agent: {
      command: agent.command ?? [],
      prompt: agent.prompt,
      promptMode: agent.promptMode ?? 'argument',
      environmentNames: Object.keys(environment).sort(),
      user: agent.user,
      workingDir: agent.workingDir,
    },
  };
  return { spec, environment };
}

function routesOf(routes: readonly ManifestRoute[]): Route[] {
  const ids = new Set(routes.map(({ id }) => id));
  return routes.map((route, index) => {
    let id = route.id ?? `route-${index + 1}`;
    if (route.id === undefined) while (ids.has(id)) id += '-x';
    ids.add(id);
    return {
      id,
      hosts: route.hosts,
      ports: route.ports ?? [443, 80],
      protocol: route.protocol ?? 'http',
      matches: route.matches ?? [],
      privateRanges: route.privateRanges ?? [],
    };
  });
}

/** Reads `HOST`, `*.NAME`, `HOST:PORT` or `[IPV6]:PORT`: everything of that host by HTTP. @throws CONFIG_INVALID */
export function routeOf(text: string): ManifestRoute {
  const [, host, port] = /^(\[[0-9A-Fa-f:.]+\]|[^:[\]]+)(?::(\d{1,5}))?$/.exec(text) ?? [];
  const number = port === undefined ? undefined : Number(port);
  if (host === undefined || number === 0 || (number ?? 0) > 65_535) {
    throw new DecantError('CONFIG_INVALID', `Not a host to allow: ${quote(text)}.`, {
      hint: 'Write HOST, *.NAME, HOST:PORT or [IPV6]:PORT, for example api.example.com or registry.example.com:8443.',
    });
  }
  return { hosts: [host], ...(number === undefined ? {} : { ports: [number] }) };
}

/** Below these the machine has its own file systems. */
const RESERVED = ['/proc', '/sys', '/dev'];

function mountsOf(mounts: NonNullable<Manifest['mounts']>, refuse: (problem: string) => DecantError): Mount[] {
  const targets = new Set<string>();
  return mounts.map((mount) => {
    const target = resolve(mount.target);
    if (target === '/' || RESERVED.some((path) => target === path || target.startsWith(`${path}/`))) {
      throw refuse(`Nothing can be mounted on ${target}.`);
    }
    if (targets.has(target)) throw refuse(`Two mounts have the target ${target}.`);
    targets.add(target);
    return mount.type === 'tmpfs'
      ? { type: mount.type, target, sizeBytes: mount.size }
      : { type: mount.type, source: resolve(mount.source), target };
  });
}

/**
 * The values of the agent's variables, those of the operator looked up.
 * @throws CONFIG_INVALID when the operator's environment does not have one.
 */
export function environmentOf(
  environment: Readonly<Record<string, EnvironmentSource>>,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Readonly<Record<string, string>> {
  const values: Record<string, string> = {};
  for (const [name, source] of Object.entries(environment)) {
    const value = typeof source === 'string' ? source : env[source.from];
    if (value === undefined) {
      const from = typeof source === 'string' ? name : source.from;
      throw new DecantError('CONFIG_INVALID', `The agent's variable ${name} comes from ${from}, which is not set.`, {
        hint: `Set ${from} where decant is started.`,
      });
    }
    values[name] = value;
  }
  return values;
}
