import { randomBytes } from 'node:crypto';
import { lstat, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { findStage, readDockerfile, withLineAfterFrom, type DockerfileFeature } from '@decant/context';
import { run, type RunOptions, type RunResult } from '@decant/core/node';

import { buildError, withoutSecrets } from './build-error.ts';
import { layBuildFiles, type BuildFiles } from './build-files.ts';
import { checkRequest } from './check-request.ts';
import { dyingWithUs } from './confine.ts';
import { engineTarget, platformArguments } from './engine-arguments.ts';
import type {
  Architecture,
  BuilderCapabilities,
  BuilderDriver,
  BuildEvent,
  BuildRequest,
  BuildResult,
  CallOptions,
} from './driver.ts';
import { CACHE_MARK, withoutCacheMark } from './cache-mark.ts';
import { architectureOf, buildResult } from './image-archive.ts';
import { startJanitor } from './janitor.ts';
import { BuildkitReader } from './output/buildkit.ts';
import { ClassicReader } from './output/classic.ts';
import { succeeds } from './process-output.ts';
import { writeDockerLogins } from './registry-logins.ts';
import { removeTree } from './remove-tree.ts';
import { runEngine } from './run-engine.ts';
import { prepareSecrets } from './secrets.ts';

export interface DockerOptions {
  /** Path of the docker client. */
  readonly program: string;
  /** Variables on top of this process's environment, for example DOCKER_HOST or DOCKER_CONFIG. */
  readonly env?: Readonly<Record<string, string>> | undefined;
}

/** What a docker client and the daemon behind it said of themselves. */
export interface DockerFacts {
  readonly serverVersion: string;
  readonly architecture: Architecture;
  /** The flags of `docker build` with BuildKit on; undefined when the client has no BuildKit. */
  readonly buildkitFlags: ReadonlySet<string> | undefined;
}

/** Milliseconds that a question to the daemon may take, of which a busy disk takes many to start the client. */
const QUERY_TIMEOUT_MS = 60_000;
const REMOVE_TIMEOUT_MS = 60_000;
const ABSENT = /no such image/i;

/** Front end features by the daemon's version: 23.0 came with Dockerfile 1.5 built in, 20.10 with 1.2. */
export function buildkitFeatures(serverVersion: string): ReadonlySet<DockerfileFeature> {
  const major = Number(/^\d+/.exec(serverVersion)?.[0] ?? 0);
  const features: DockerfileFeature[] = ['RUN --mount', 'COPY --chmod'];
  if (major >= 23) features.push('heredoc', 'COPY --link', 'RUN --network', 'ADD --checksum', 'ADD --keep-git-dir');
  return new Set(features);
}

/** A driver for docker, through BuildKit or the classic builder. */
export function dockerDriver(
  kind: 'docker-buildkit' | 'docker',
  facts: DockerFacts,
  options: DockerOptions,
): BuilderDriver {
  const buildkit = kind === 'docker-buildkit';
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    ...options.env,
    DOCKER_BUILDKIT: buildkit ? '1' : '0',
    DOCKER_CLI_HINTS: 'false',
  };
  const engine = `docker ${facts.serverVersion} (${buildkit ? 'BuildKit' : 'classic builder'})`;
  const capabilities: BuilderCapabilities = {
    architecture: facts.architecture,
    features: buildkit ? buildkitFeatures(facts.serverVersion) : new Set(),
    networks: ['default', 'none', 'host'],
    cacheModes: ['use', 'ignore', 'refresh'],
    secrets: buildkit,
    cacheMounts: buildkit,
    ownIgnoreFile: buildkit,
    reproducible: false,
    outputs: ['docker-archive', 'oci-layout'],
    skipsUnusedStages: buildkit,
    rootless: false,
  };
  const docker = async (args: readonly string[], extra: RunOptions = {}): Promise<RunResult> => {
    const [program, ...rest] = await dyingWithUs([options.program, ...args]);
    return run(program, rest, { env, ...extra });
  };
  const ask = (args: readonly string[], { signal }: CallOptions) =>
    docker(args, { timeoutMs: QUERY_TIMEOUT_MS, signal });

  async function* build(request: BuildRequest, { signal }: CallOptions = {}): AsyncGenerator<BuildEvent, BuildResult> {
    signal?.throwIfAborted();
    yield* checkRequest(engine, capabilities, request);
    const secrets = await prepareSecrets(request.secrets);
    const nonce = request.cache === 'ignore' ? randomBytes(8).toString('hex') : undefined;
    const files = await layBuildFiles(request, {
      signal,
      onRoot: (root) => startJanitor({ root, env }),
      ...(nonce === undefined || buildkit
        ? {}
        : { edit: (dockerfile) => withLineAfterFrom(dockerfile, `ARG ${CACHE_MARK}=${nonce}`) }),
    });
    const marks = stageCount(request);
    try {
      if (!buildkit) yield* withoutIgnoreFile(files);
      const logins =
        request.auth === undefined ? {} : await writeDockerLogins(join(files.root, 'docker'), request.auth, env);
      const classic = () => (nonce === undefined ? new ClassicReader() : withoutCacheMark(new ClassicReader(), marks));
      const reader = buildkit ? new BuildkitReader() : classic();
      const flags = buildkit ? facts.buildkitFlags : undefined;
      const args = dockerBuildArguments(request, files, {
        ...{ flags, secrets: secrets.flags, nonce },
        architecture: facts.architecture,
      });
      const command = await dyingWithUs([options.program, ...args]);
      const exitCode = yield* runEngine(command, reader, {
        env: { ...env, ...logins, ...secrets.env },
        killAfterMs: 1000,
        masked: secrets.masked,
        signal,
      });
      if (exitCode !== 0) throw buildError(engine, withoutSecrets(reader.failure(), secrets.masked), files.root);
      const image = (await readFile(files.imageIdFile, 'utf8')).trim();
      const { stdout } = await ask(['image', 'inspect', '--format', '{{.Architecture}}', image], { signal });
      const architecture = architectureOf(stdout.toString().trim()) ?? facts.architecture;
      return buildResult(
        { image, architecture, engine },
        {
          env,
          write: async (directory, fileName, call) => {
            await docker(['save', '-o', fileName, image], { cwd: directory, signal: call.signal });
          },
          stream: await dyingWithUs([options.program, 'save', image]),
        },
      );
    } finally {
      await removeTree(files.root);
      await files.janitor?.[Symbol.asyncDispose]();
    }
  }

  return {
    name: kind,
    engine,
    capabilities,
    build,
    async importBase({ tarFile, reference }, { signal } = {}) {
      await docker(['import', tarFile, reference], { signal });
    },
    async imageExists(reference, call = {}) {
      return succeeds(ask(['image', 'inspect', '--format', '{{.Id}}', reference], call), ABSENT);
    },
    async removeImage(reference, { signal } = {}) {
      await succeeds(docker(['image', 'rm', reference], { timeoutMs: REMOVE_TIMEOUT_MS, signal }), ABSENT);
    },
    // The daemon ends a step when its client is gone and removes its container (--force-rm).
    cleanUpLeftovers: () => Promise.resolve(0),
  };
}

/** How many stages the classic builder runs. */
function stageCount({ context, buildArgs, target }: BuildRequest): number {
  const { bytes, displayPath: fileName } = context.dockerfile;
  const { stages } = readDockerfile(bytes, { fileName, buildArgs });
  return (findStage(stages, target)?.index ?? 0) + 1;
}

/**
 * The classic client obeys an ignore file in the context whatever `--file` says, and writes a random name into the
 * copy it sends, which would make every build a new one. So it must go, at the price of not being COPYable.
 */
async function* withoutIgnoreFile(files: BuildFiles): AsyncGenerator<BuildEvent, void> {
  const file = join(files.context, '.dockerignore');
  if ((await lstat(file).catch(() => undefined)) === undefined) return;
  await rm(file, { recursive: true });
  const message = 'The classic builder cannot copy .dockerignore itself into an image; it is left out.';
  yield { type: 'warning', stage: 'build', message };
}

export interface DockerBuild {
  /** Flags of the client's BuildKit; undefined for the classic builder. */
  readonly flags: ReadonlySet<string> | undefined;
  /** Values of `--secret`. */
  readonly secrets: readonly string[];
  /** Random, for a build that leaves the cache as it is. */
  readonly nonce: string | undefined;
  /** Of the engine. */
  readonly architecture: Architecture;
}

/** The arguments of `docker build`. */
export function dockerBuildArguments(
  request: BuildRequest,
  files: BuildFiles,
  { flags, secrets, nonce, architecture }: DockerBuild,
): string[] {
  const args = ['build', '--force-rm', '--iidfile', files.imageIdFile, '--file', files.dockerfile];
  if (flags !== undefined) {
    args.push('--progress', 'plain');
    // buildx alone: put the result into the daemon's store, as one image without attestations beside it.
    if (flags.has('--load')) args.push('--load');
    if (flags.has('--provenance')) args.push('--provenance=false');
  }
  // The results of such a build replace the ones before.
  if (request.cache === 'refresh' || request.cache === 'ignore') args.push('--no-cache');
  // Unless its steps are other steps to BuildKit: the names that a step can look up are part of their key.
  if (nonce !== undefined && flags !== undefined) args.push('--add-host', `${nonce}.decant.invalid:127.0.0.1`);
  const target = engineTarget(request);
  if (target !== undefined) args.push('--target', target);
  if ((request.network ?? 'default') !== 'default') args.push('--network', request.network!);
  const given = { ...(flags === undefined ? platformArguments(request, architecture) : {}), ...request.buildArgs };
  for (const [name, value] of Object.entries(given)) args.push('--build-arg', `${name}=${value}`);
  for (const secret of secrets) args.push('--secret', secret);
  if (request.tag !== undefined) args.push('--tag', request.tag);
  args.push(files.context);
  return args;
}
