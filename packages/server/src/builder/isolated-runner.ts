import { chmod, link, mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import {
  engineTarget,
  BuildahReader,
  checkRequest,
  probeBuildah,
  type BuilderDriver,
  type BuildRequest,
} from '@decant/builder-local';
import { withoutSyntaxLine } from '@decant/context';
import { DecantError, isDecantError } from '@decant/core';
import { requireBuildCells, runBuildCell } from '@decant/jail';

import { fetchBases, type BaseImage } from './base-images.ts';
import { BUILD_SCRIPT } from './build-script.ts';
import { cellError } from './cell-error.ts';
import type { ImageSources } from './image-sources.ts';
import type { BuilderLimits } from './limits.ts';
import { NO_NETWORK_HINT, saysNoNetwork } from './network-hint.ts';
import type { BuildRunner, BuiltImage, RunnerRequest } from './runner.ts';
import { VolumeStore } from './volume-store.ts';

export interface IsolatedRunnerOptions {
  readonly sources: ImageSources;
  /** Where volumes and layer caches are kept. */
  readonly directory: string;
  readonly limits: BuilderLimits;
}

/** How long an answer of {@link BuildRunner.ready} holds, in milliseconds. */
const READY_MS = 60_000;
const POLICY = '{"default":[{"type":"insecureAcceptAnything"}]}\n';
const REGISTRIES = 'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "disabled"\n';
const PASSWD = 'root:x:0:0:root:/build/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n';
const GROUP = 'root:x:0:\nnogroup:x:65534:\n';
/** Files of the engine, by their paths inside, and where they lie in the inbox. */
const ENGINE_FILES = {
  '/etc/containers/policy.json': 'policy.json',
  '/etc/containers/registries.conf': 'registries.conf',
  '/etc/passwd': 'passwd',
  '/etc/group': 'group',
};

/**
 * Runs builds that must not be trusted: buildah in a cell of its own, with ids, processes, disk and memory of its own and
 * no network. Images to build on are fetched by the service.
 */
export function isolatedRunner(options: IsolatedRunnerOptions): BuildRunner {
  const volumes = new VolumeStore({ directory: options.directory, cacheBytes: options.limits.cacheBytes });
  // What a killed service left goes at the next start, not at the next build.
  const recovered = volumes.recover();
  recovered.catch(() => undefined);
  let engine: { readonly at: number; readonly found: Promise<BuilderDriver> } | undefined;
  const theEngine = (): Promise<BuilderDriver> => {
    if (engine === undefined || performance.now() - engine.at > READY_MS) {
      engine = { at: performance.now(), found: findEngine() };
      engine.found.catch(() => (engine = undefined));
    }
    return engine.found;
  };
  return {
    async ready() {
      await theEngine();
    },
    async run(request) {
      await recovered;
      return build(request, await theEngine(), volumes, options);
    },
    async [Symbol.asyncDispose]() {
      await recovered.catch(() => undefined);
    },
  };
}

async function findEngine(): Promise<BuilderDriver> {
  try {
    await requireBuildCells();
  } catch (error) {
    if (!isDecantError(error)) throw error;
    throw new DecantError('BUILD_ISOLATION_UNAVAILABLE', error.message, { hint: error.hint, cause: error });
  }
  const [found] = await probeBuildah({});
  if (found?.usable === true) return found.driver;
  throw new DecantError('BUILD_ISOLATION_UNAVAILABLE', `Confined builds need buildah. ${found?.reason ?? ''}`.trim(), {
    hint: 'On Debian or Ubuntu: apt-get install -y --no-install-recommends buildah',
  });
}

async function build(
  request: RunnerRequest,
  driver: BuilderDriver,
  volumes: VolumeStore,
  { sources }: IsolatedRunnerOptions,
): Promise<BuiltImage> {
  const { fields, directory, limits, signal } = request;
  request.onEngine(`${driver.engine}, confined`);
  for (const { message } of checkRequest(driver.engine, driver.capabilities, wanted(request))) {
    request.onLine(`Warning: ${message}`);
  }
  const inbox = join(directory, 'in');
  const mountPoint = join(directory, 'volume');
  await mkdir(inbox, { mode: 0o755 });
  await mkdir(mountPoint);
  const { architecture, skipsUnusedStages: skipUnused } = driver.capabilities;
  const bases = await fetchBases(request, { sources, architecture, skipUnused, directory: inbox });
  await fillInbox(inbox, request, bases);
  const volume = await volumes.acquire({
    cacheOf: fields.cache === 'ignore' ? undefined : [request.namespace, request.cacheKey],
    fresh: fields.cache === 'refresh',
    sizeBytes: limits.diskBytes,
    signal,
  });
  const archiveFile = join(directory, 'image.tar');
  const reader = new BuildahReader();
  let hasEnded = false;
  let wantedNetwork = false;
  try {
    await using archive = await open(archiveFile, 'wx', 0o600);
    const result = await runBuildCell({
      volumeFile: volume.file,
      firstHostId: volume.firstHostId,
      inbox,
      mountPoint,
      files: ENGINE_FILES,
      argv: ['/bin/sh', '-c', BUILD_SCRIPT, 'build', ...engineArguments(request)],
      env: {
        PATH: '/usr/sbin:/usr/bin',
        HOME: '/build/home',
        LC_ALL: 'C',
        TMPDIR: '/build/work/tmp',
        XDG_RUNTIME_DIR: '/run',
        // The cell is the user namespace: the engine is root in it and need not make one.
        _CONTAINERS_USERNS_CONFIGURED: '1',
      },
      limits: {
        memoryBytes: limits.memoryBytes,
        processes: limits.processes,
        cpus: limits.cpus,
        cpuMs: limits.cpuMs,
        outputBytes: limits.imageBytes,
      },
      output: async (piece) => {
        await archive.writeFile(piece);
      },
      onLine: (line, stream) => {
        for (const event of reader.line(line, stream)) {
          if (event.type !== 'log') continue;
          wantedNetwork ||= saysNoNetwork(event.line);
          request.onLine(event.line);
        }
      },
      signal,
    });
    // From here on nothing is being written to the volume: what is in it is whole, also after a step that failed.
    hasEnded = result.limit !== 'disk' && result.limit !== 'cpu-time' && result.limit !== 'output';
    const error = cellError(result, driver.engine, reader, limits);
    if (error?.code === 'BUILD_STEP_FAILED' && wantedNetwork) throw withHint(error, NO_NETWORK_HINT);
    if (error !== undefined) throw error;
    return { archiveFile };
  } finally {
    await volume.release(hasEnded);
  }
}

function withHint({ code, message, details, cause }: DecantError, hint: string): DecantError {
  return new DecantError(code, message, { hint, details, cause });
}

function wanted({ fields, dockerfile, directory }: RunnerRequest): BuildRequest {
  return {
    context: {
      dockerfile: { displayPath: fields.dockerfile, bytes: dockerfile },
      materialize: async () => undefined,
    },
    buildArgs: fields.build_args,
    target: fields.target,
    ...(fields.architecture === undefined ? {} : { platform: `linux/${fields.architecture}` as const }),
    workDirectory: directory,
  };
}

function engineArguments(request: RunnerRequest): string[] {
  const { fields } = request;
  // The docker format keeps SHELL and HEALTHCHECK, which the OCI configuration has no place for. The host's network, as
  // the engine calls it, is that of the cell: none.
  const args = ['--format', 'docker', '--layers', '--force-rm', '--isolation', 'chroot', '--network', 'host'];
  args.push('--pull=false', '--ignorefile', '/in/ignore');
  const target = engineTarget(wanted(request));
  if (target !== undefined) args.push('--target', target);
  for (const [name, value] of Object.entries(fields.build_args)) args.push('--build-arg', `${name}=${value}`);
  return args;
}

/** Everybody may read what lies there: the ids of the cell are nobody on the host. */
async function fillInbox(inbox: string, request: RunnerRequest, bases: readonly BaseImage[]): Promise<void> {
  await link(request.contextFile, join(inbox, 'context'));
  await chmod(join(inbox, 'context'), 0o644);
  const files: Record<string, string | Uint8Array> = {
    Dockerfile: withoutSyntaxLine(request.dockerfile),
    // Contexts are filtered by whoever sends them.
    ignore: '',
    bases: bases.map(({ directory, name }) => `${directory} ${name}\n`).join(''),
    'policy.json': POLICY,
    'registries.conf': REGISTRIES,
    passwd: PASSWD,
    group: GROUP,
  };
  for (const [name, content] of Object.entries(files)) await writeFile(join(inbox, name), content, { mode: 0o644 });
}
