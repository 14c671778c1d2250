import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { DockerfileFeature } from '@decant/context';
import { run, type RunOptions, type RunResult } from '@decant/core/node';

import { writeBaseArchive } from './base-archive.ts';
import { buildError } from './build-error.ts';
import { layBuildFiles, type BuildFiles } from './build-files.ts';
import { markedContainers, newBuildMark, ownerIsGone } from './buildah-containers.ts';
import { checkRequest } from './check-request.ts';
import { inOwnNamespaces, type CommandLine } from './confine.ts';
import { secretArgument } from './docker.ts';
import type {
  Architecture,
  BuilderCapabilities,
  BuilderDriver,
  BuildEvent,
  BuildRequest,
  BuildResult,
  CallOptions,
} from './driver.ts';
import { architectureOf, buildResult } from './image-archive.ts';
import { BuildahReader } from './output/buildah.ts';
import { succeeds } from './process-output.ts';
import { removeTree } from './remove-tree.ts';
import { runEngine } from './run-engine.ts';
import { dockerHubForShortNames } from './short-names.ts';

export interface BuildahOptions {
  /** Path of buildah; default: the one on PATH. */
  readonly program?: string | undefined;
  /** Where images are kept (`--root`); default: buildah's own. */
  readonly storageRoot?: string | undefined;
  /** Where its state of this boot is kept (`--runroot`); default: buildah's own. */
  readonly runRoot?: string | undefined;
  readonly storageDriver?: 'overlay' | 'vfs' | undefined;
  /** Variables on top of this process's environment. */
  readonly env?: Readonly<Record<string, string>> | undefined;
}

/** What buildah said of itself. */
export interface BuildahFacts {
  readonly program: string;
  readonly version: string;
  readonly architecture: Architecture;
  readonly graphRoot: string;
  readonly graphDriver: string;
  readonly rootless: boolean;
  /** Path of runc, which steps without a network need: crun fails on machines with hybrid cgroups. */
  readonly runc: string | undefined;
}

const QUERY_TIMEOUT_MS = 20_000;
/** Milliseconds for removing a container after a cancelled build. */
const CLEAN_TIMEOUT_MS = 3000;
const REMOVE_TIMEOUT_MS = 60_000;
const ABSENT = /image not known/i;

/** Front end features by version; here-documents came with 1.33. */
export function buildahFeatures(version: string): ReadonlySet<DockerfileFeature> {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const features: DockerfileFeature[] = ['RUN --mount', 'COPY --chmod'];
  if (major > 1 || minor >= 33) features.push('heredoc');
  return new Set(features);
}

/** `--skip-unused-stages` is on by default where buildah has it; 1.28.2 does. */
export function skipsUnusedStages(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > 1 || (major === 1 && minor >= 28);
}

/** The options of every buildah command. */
export function storageArguments(options: BuildahOptions): string[] {
  const args: string[] = [];
  if (options.storageRoot !== undefined) args.push('--root', options.storageRoot);
  if (options.runRoot !== undefined) args.push('--runroot', options.runRoot);
  if (options.storageDriver !== undefined) args.push('--storage-driver', options.storageDriver);
  return args;
}

/**
 * A buildah command line in namespaces of its own, so that nothing it starts or mounts outlives it. An ordinary user
 * enters through `buildah unshare`, which maps the user's subordinate ids.
 */
export function buildahCommand(program: string, options: BuildahOptions, rootless: boolean, args: readonly string[]) {
  const storage = storageArguments(options);
  const enter = rootless ? [program, ...storage, 'unshare'] : [];
  return inOwnNamespaces([program, ...storage, ...args], enter);
}

/** A driver for buildah, as root or as an ordinary user. */
export function buildahDriver(facts: BuildahFacts, options: BuildahOptions): BuilderDriver {
  const engine = `buildah ${facts.version}${facts.rootless ? ' (rootless)' : ''}`;
  const capabilities: BuilderCapabilities = {
    architecture: facts.architecture,
    features: buildahFeatures(facts.version),
    networks: facts.runc === undefined ? ['default', 'host'] : ['default', 'none', 'host'],
    skipsUnusedStages: skipsUnusedStages(facts.version),
    rootless: facts.rootless,
  };
  const env: NodeJS.ProcessEnv = { ...process.env, ...options.env };
  const commandOf = (args: readonly string[]): Promise<CommandLine> =>
    buildahCommand(facts.program, options, facts.rootless, args);
  const buildah = async (args: readonly string[], extra: RunOptions = {}): Promise<RunResult> => {
    const [program, ...rest] = await commandOf(args);
    return run(program, rest, { env, ...extra });
  };
  const removeContainers = async (
    wanted: (mark: string) => boolean | Promise<boolean>,
    timeoutMs: number,
    signal?: AbortSignal,
  ) => {
    const containers = await markedContainers(facts.graphRoot, facts.graphDriver);
    const ids: string[] = [];
    for (const { id, mark } of containers) if (await wanted(mark)) ids.push(id);
    if (ids.length > 0) await buildah(['rm', ...ids], { timeoutMs, signal });
    return ids.length;
  };
  /** Files below a build's directory may belong to subordinate ids, which only root of their namespace can remove. */
  const removeFiles = async (root: string) => {
    try {
      await removeTree(root);
    } catch (error) {
      if (!facts.rootless) throw error;
      await run(facts.program, [...storageArguments(options), 'unshare', 'rm', '-rf', '--', root], {
        env,
        timeoutMs: REMOVE_TIMEOUT_MS,
      });
    }
  };

  /** Runs one build in laid-out files and returns the image id; whatever happens, no container stays. */
  async function* bud(
    request: BuildRequest,
    files: BuildFiles,
    signal?: AbortSignal,
  ): AsyncGenerator<BuildEvent, string> {
    const mark = await newBuildMark();
    const reader = new BuildahReader();
    const shortNames = await dockerHubForShortNames(files.temporary, env);
    const command = await commandOf(buildahBuildArguments(request, files, facts, mark));
    let done = false;
    try {
      const exitCode = yield* runEngine(command, reader, {
        // Its temporary files go with the build's directory, also when it is killed.
        env: { ...env, ...shortNames, TMPDIR: files.temporary },
        killAfterMs: 500,
        signal,
      });
      if (exitCode !== 0) throw buildError(engine, reader.failure(), files.root);
      done = true;
    } finally {
      // A failure to clean up must not hide why the build ended; the next start cleans up again.
      if (!done) await removeContainers((found) => found === mark, CLEAN_TIMEOUT_MS).catch(() => undefined);
    }
    return (await readFile(files.imageIdFile, 'utf8')).trim();
  }

  async function* build(request: BuildRequest, { signal }: CallOptions = {}): AsyncGenerator<BuildEvent, BuildResult> {
    signal?.throwIfAborted();
    yield* checkRequest(engine, capabilities, request);
    const files = await layBuildFiles(request, { signal });
    try {
      const image = yield* bud(request, files, signal);
      const id = image.replace(/^sha256:/, '');
      const query = ['inspect', '--type', 'image', '--format', '{{.OCIv1.Architecture}}', id];
      const { stdout } = await buildah(query, { timeoutMs: QUERY_TIMEOUT_MS, signal });
      const architecture = architectureOf(stdout.toString().trim()) ?? facts.architecture;
      return buildResult({ image: `sha256:${id}`, architecture, engine }, async (directory, fileName, call) => {
        // A relative name, because the directory may hold a colon, which ends the path in this notation.
        await buildah(['push', '--quiet', id, `docker-archive:${fileName}`], { cwd: directory, signal: call.signal });
      });
    } finally {
      await removeFiles(files.root);
    }
  }

  return {
    name: 'buildah',
    engine,
    capabilities,
    build,
    async importBase({ tarFile, reference }, { signal } = {}) {
      const directory = await mkdtemp(join(tmpdir(), 'decant-import-'));
      try {
        const { architecture } = facts;
        await writeBaseArchive({ tarFile, name: withTag(withHost(reference)), architecture }, directory, { signal });
        // A relative name, because the path of the directory may hold a colon.
        await buildah(['pull', '--quiet', 'docker-archive:image.tar'], { cwd: directory, signal });
      } finally {
        await removeTree(directory);
      }
    },
    async imageExists(reference, { signal } = {}) {
      const query = ['inspect', '--type', 'image', '--format', '{{.Type}}', reference];
      return succeeds(buildah(query, { timeoutMs: QUERY_TIMEOUT_MS, signal }), ABSENT);
    },
    async removeImage(reference, { signal } = {}) {
      await succeeds(buildah(['rmi', reference], { timeoutMs: REMOVE_TIMEOUT_MS, signal }), ABSENT);
    },
    cleanUpLeftovers: ({ signal } = {}) => removeContainers(ownerIsGone, REMOVE_TIMEOUT_MS, signal),
  };
}

/** The arguments of `buildah bud`, without those of the storage. */
export function buildahBuildArguments(
  request: BuildRequest,
  files: BuildFiles,
  facts: Pick<BuildahFacts, 'rootless' | 'runc'>,
  mark: string,
): string[] {
  // The docker format keeps SHELL and HEALTHCHECK, which the OCI configuration has no place for.
  const args = ['bud', '--format', 'docker', '--layers', '--force-rm', '--iidfile', files.imageIdFile];
  if (request.network === 'none') {
    args.push(
      '--isolation',
      facts.rootless ? 'rootless' : 'oci',
      '--runtime',
      facts.runc ?? 'runc',
      '--network',
      'none',
    );
  } else {
    // Steps share the machine's network; the other kinds of isolation need plug-ins for one of their own.
    args.push('--isolation', 'chroot');
  }
  // Nothing mounts this secret. It is recorded with each working container, and so says whose the container is.
  args.push('--secret', `id=${mark},src=/dev/null`);
  args.push('--file', files.dockerfile);
  if (request.cache === 'ignore') args.push('--no-cache');
  if (request.target !== undefined) args.push('--target', request.target);
  for (const [name, value] of Object.entries(request.buildArgs ?? {})) args.push('--build-arg', `${name}=${value}`);
  for (const secret of request.secrets ?? []) args.push('--secret', secretArgument(secret));
  if (request.tag !== undefined) args.push('--tag', withHost(request.tag));
  args.push(files.context);
  return args;
}

/** A name without a registry gets `localhost/`, where buildah looks first when FROM gives a short name. */
export function withHost(reference: string): string {
  const slash = reference.indexOf('/');
  const first = slash < 0 ? '' : reference.slice(0, slash);
  return first === 'localhost' || /[.:]/.test(first) ? reference : `localhost/${reference}`;
}

function withTag(reference: string): string {
  return reference.includes(':', reference.lastIndexOf('/') + 1) ? reference : `${reference}:latest`;
}
