import { basename, dirname, resolve } from 'node:path';

import {
  environmentOf,
  loadManifest,
  mergeManifests,
  dockerBackend,
  nativeBackend,
  operatorDirectory,
  planBottle,
  requestManifest,
  routeOf,
  specOf,
  type Backend,
  type BottlePlan,
  type ManifestInput,
} from '@decant/bottle';
import { isDecantError } from '@decant/core';

import type { Session, WorkOptions } from './session.ts';

/** A bottle as it is asked for: a manifest of the operator, or an image; what is said here goes before the manifest. */
export interface BottleRequest {
  /** A manifest by its name or its file in the operator's folder; what the bottle is called when there is an image. */
  readonly name?: string | undefined;
  /** What the bottle is called, whatever its manifest says. */
  readonly bottleName?: string | undefined;
  /** Instead of the manifest's. When there is no manifest of that name either, the request alone says everything. */
  readonly image?: string | undefined;
  readonly backend?: Backend['name'] | undefined;
  /** Hosts it may reach besides those of the manifest, by HTTP: `HOST`, `*.NAME`, `HOST:PORT`. */
  readonly allow?: readonly string[] | undefined;
  /** Program and arguments instead of the manifest's or the image's. */
  readonly command?: readonly string[] | undefined;
  /** Variables of the agent. Their values stand in no plan. */
  readonly environment?: Readonly<Record<string, string>> | undefined;
  readonly user?: string | undefined;
  readonly workingDir?: string | undefined;
  readonly mounts?: ManifestInput['mounts'];
  readonly limits?:
    | {
        readonly cpus?: number | undefined;
        readonly memoryBytes?: number | undefined;
        readonly diskBytes?: number | undefined;
        readonly processes?: number | undefined;
        readonly wallTimeMs?: number | undefined;
      }
    | undefined;
}

/** A plan with what may not stand in it. */
export interface PlannedBottle {
  readonly plan: BottlePlan;
  /** Files of the manifest and of those that it extends; empty without one. */
  readonly files: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly backend: Backend;
}

/**
 * Plans a bottle; nothing happens yet. @throws NOT_FOUND for a manifest that is not there and when no image is named,
 * BOTTLE_MANIFEST_UNTRUSTED, CONFIG_INVALID, USAGE, NAME_INVALID
 */
export async function planFor(
  session: Session,
  request: BottleRequest,
  { signal }: WorkOptions,
): Promise<PlannedBottle> {
  const asked = requestManifest(manifestOf(request));
  const loaded = await loadNamed(request);
  const manifest =
    loaded === undefined
      ? { ...asked, name: asked.name ?? request.name ?? nameOfImage(request.image ?? '') }
      : mergeManifests(loaded.manifest, asked);
  const { spec, environment } = specOf(manifest);
  const backend = backendOf(session, spec.backend);
  const plan = await planBottle(spec, { backend, signal });
  return { plan, files: loaded?.files ?? [], environment: environmentOf(environment), backend };
}

export function backendOf({ paths }: Session, name: Backend['name']): Backend {
  const hiddenFolders = [paths.home, paths.scratch];
  return name === 'docker' ? dockerBackend({ hiddenFolders }) : nativeBackend({ hiddenFolders });
}

/** All backends, for what killed bottles of any of them left. */
export function allBackends(session: Session): readonly Backend[] {
  return [backendOf(session, 'native'), backendOf(session, 'docker')];
}

/** What is asked for, as a manifest would say it. */
export function manifestOf(request: BottleRequest): ManifestInput {
  const { bottleName, image, backend, allow, command, environment, user, workingDir, mounts, limits } = request;
  const given = (object: object) =>
    Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
  const input = given({
    name: bottleName,
    image,
    backend,
    mounts,
    egress: allow === undefined ? undefined : { routes: allow.map(routeOf) },
    limits:
      limits === undefined
        ? undefined
        : given({
            cpus: limits.cpus,
            memory: limits.memoryBytes,
            disk: limits.diskBytes,
            processes: limits.processes,
            wallTime: limits.wallTimeMs === undefined ? undefined : `${Math.round(limits.wallTimeMs / 1000)}s`,
          }),
    agent: given({
      command,
      user,
      workingDir,
      env: environment === undefined || Object.keys(environment).length === 0 ? undefined : environment,
    }),
  });
  return input;
}

async function loadNamed({ name, image }: BottleRequest) {
  if (name === undefined) return undefined;
  const directory = operatorDirectory();
  // Its file, as a shell completes it; any other path is no name, and is refused as one.
  const inFolder = name.endsWith('.yaml') && resolve(dirname(name)) === resolve(directory);
  try {
    return await loadManifest(inFolder ? basename(name, '.yaml') : name, { directory });
  } catch (error) {
    const isNone = isDecantError(error, 'NOT_FOUND') || isDecantError(error, 'NAME_INVALID');
    if (image !== undefined && isNone) return undefined;
    throw error;
  }
}

/** What a bottle is called that nobody named: its image without registry, path and tag. */
export function nameOfImage(image: string): string {
  const last = image.split('/').at(-1) ?? '';
  return last.split(/[:@]/)[0] ?? '';
}
