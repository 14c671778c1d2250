import { lstat, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import type { DockerfileFeature } from '@decant/context';
import { DecantError } from '@decant/core';
import { run, type RunOptions, type RunResult } from '@decant/core/node';

import { buildError } from './build-error.ts';
import { layBuildFiles, type BuildFiles } from './build-files.ts';
import { checkRequest } from './check-request.ts';
import { dyingWithUs } from './confine.ts';
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
import { BuildkitReader } from './output/buildkit.ts';
import { ClassicReader } from './output/classic.ts';
import { succeeds } from './process-output.ts';
import { removeTree } from './remove-tree.ts';
import { runEngine } from './run-engine.ts';

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

/** Milliseconds that a question to the daemon may take. */
const QUERY_TIMEOUT_MS = 20_000;
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
    const files = await layBuildFiles(request, { signal });
    try {
      if (!buildkit) yield* withoutIgnoreFile(files);
      const reader = buildkit ? new BuildkitReader() : new ClassicReader();
      const args = dockerBuildArguments(request, files, buildkit ? facts.buildkitFlags : undefined);
      const command = await dyingWithUs([options.program, ...args]);
      const exitCode = yield* runEngine(command, reader, { env, killAfterMs: 1000, signal });
      if (exitCode !== 0) throw buildError(engine, reader.failure(), files.root);
      const image = (await readFile(files.imageIdFile, 'utf8')).trim();
      const { stdout } = await ask(['image', 'inspect', '--format', '{{.Architecture}}', image], { signal });
      const architecture = architectureOf(stdout.toString().trim()) ?? facts.architecture;
      return buildResult({ image, architecture, engine }, async (directory, fileName, call) => {
        await docker(['save', '-o', fileName, image], { cwd: directory, signal: call.signal });
      });
    } finally {
      await removeTree(files.root);
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

/** The arguments of `docker build`; `flags` are those of the client's BuildKit, undefined for the classic builder. */
export function dockerBuildArguments(
  request: BuildRequest,
  files: BuildFiles,
  flags: ReadonlySet<string> | undefined,
): string[] {
  const args = ['build', '--force-rm', '--iidfile', files.imageIdFile, '--file', files.dockerfile];
  if (flags !== undefined) {
    args.push('--progress', 'plain');
    // buildx alone: put the result into the daemon's store, as one image without attestations beside it.
    if (flags.has('--load')) args.push('--load');
    if (flags.has('--provenance')) args.push('--provenance=false');
  }
  if (request.cache === 'ignore') args.push('--no-cache');
  if (request.target !== undefined) args.push('--target', request.target);
  if ((request.network ?? 'default') !== 'default') args.push('--network', request.network!);
  for (const [name, value] of Object.entries(request.buildArgs ?? {})) args.push('--build-arg', `${name}=${value}`);
  for (const secret of request.secrets ?? []) args.push('--secret', secretArgument(secret));
  if (request.tag !== undefined) args.push('--tag', request.tag);
  args.push(files.context);
  return args;
}

/** `id=…,src=…`; the engines split it at commas and not all of them know quotes. */
export function secretArgument({ id, file }: { readonly id: string; readonly file: string }): string {
  if (/[,"\n]/.test(id) || /[,"\n]/.test(file)) {
    throw new DecantError('USAGE', 'The id or the file name of a secret has a comma, quote or line end.');
  }
  return `id=${id},src=${file}`;
}
