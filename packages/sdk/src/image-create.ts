import { basename, resolve } from 'node:path';

import {
  chooseBuilder,
  detectBuilders,
  type BuilderDriver,
  type BuilderName,
  type BuildRequest,
  type BuildResult,
  type BuildSecret,
  type BuildSource,
  type CacheMode,
  type NetworkMode,
  type RegistryLogins,
} from '@decant/builder-local';
import { readDockerfile } from '@decant/context';
import { materializeContext, openContext, type BuildContext } from '@decant/context/node';
import { DecantError, isDecantError, parseImageName, stage, type OnEvent } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import { formatPlatform, hostPlatform, openDockerArchive } from '@decant/oci';

import { filesystemFacts, type FilesystemRequest } from './filesystem-request.ts';
import { imageResult, makeImage } from './image-make.ts';
import type { ImageResult } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

/** How an engine of this machine builds. */
export interface BuildOptions {
  /** The only engine to use; `docker` also means BuildKit in docker. Default `auto`: the best that answers. */
  readonly builder?: 'auto' | BuilderName | undefined;
  readonly secrets?: readonly BuildSecret[] | undefined;
  /** Network of RUN steps; default `default`. */
  readonly network?: NetworkMode | undefined;
  /** Default `use`. */
  readonly cache?: CacheMode | undefined;
  /** Logins for the registries of base images, for this build alone. */
  readonly auth?: RegistryLogins | undefined;
}

export interface CreateImageRequest extends FilesystemRequest, BuildOptions {
  /** Directory with what the Dockerfile copies. */
  readonly context: string;
  /** Default: `Dockerfile` in the context. */
  readonly dockerfile?: string | undefined;
  /** `NAME[:TAG]`; default: the name of the context's directory. */
  readonly name?: string | undefined;
  readonly buildArgs?: Readonly<Record<string, string>> | undefined;
  readonly target?: string | undefined;
  /** `linux/amd64` or `linux/arm64`; default: this machine's. */
  readonly platform?: string | undefined;
}

/**
 * Builds with a local engine and makes the result an admitted, named image.
 * @throws BUILD_ENGINE_MISSING, BUILD_STEP_FAILED, the errors of contexts and Dockerfiles, and those of `import`.
 */
export async function createImage(
  session: Session,
  request: CreateImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<ImageResult> {
  const started = performance.now();
  const platform = platformOf(request.platform);
  const name = request.name ?? defaultName(request.context);
  parseImageName(name);
  const filesystem = filesystemFacts(request);
  await using scratch = await openScratchDirectory(session.paths.scratch);
  const context = await readContext(request, { onEvent, signal });
  const dockerfile = new TextDecoder().decode(context.dockerfile.bytes);
  const { stages } = readDockerfile(dockerfile, {
    fileName: context.dockerfile.displayPath,
    buildArgs: request.buildArgs,
    platform: platform ?? formatPlatform(hostPlatform()),
  });
  const source: BuildSource = {
    dockerfile: context.dockerfile,
    materialize: (directory, options) => materializeContext(context, directory, options),
  };
  const buildStarted = performance.now();
  await using build = await stage(onEvent, 'build', async (finish) => {
    const { secrets, network, cache, auth, buildArgs, target } = request;
    const wanted = { context: source, secrets, network, cache, auth, buildArgs, target, platform };
    const driver = await pickBuilder(request.builder, wanted, { onEvent, signal });
    const result = await runBuild(driver, { ...wanted, workDirectory: scratch.path }, { onEvent, signal });
    finish({ message: `${result.image.slice(0, 19)} by ${result.engine}` });
    return result;
  });
  const exported = await build.exportImage(scratch.path, { signal });
  const buildMs = Math.round(performance.now() - buildStarted);
  await using image = await openDockerArchive(exported.file, { limits: filesystem.limits, signal });
  const { published, layoutMs } = await makeImage(
    session,
    image,
    {
      name,
      ...filesystem,
      dockerfile,
      baseImage: stages.at(-1)?.base ?? '',
    },
    { scratchDirectory: scratch.path, onEvent, signal },
  );
  const total = Math.round(performance.now() - started);
  return imageResult(session, published, { build: buildMs, layout: layoutMs, total }, signal);
}

async function readContext(request: CreateImageRequest, { onEvent, signal }: WorkOptions): Promise<BuildContext> {
  return stage(onEvent, 'context', async (finish) => {
    const context = await openContext({ directory: request.context, dockerfile: request.dockerfile, signal });
    for (const message of context.warnings) onEvent?.({ type: 'warning', stage: 'context', message });
    finish({
      bytes: context.totals.bytes,
      message: `${context.totals.files} ${context.totals.files === 1 ? 'file' : 'files'}`,
    });
    return context;
  });
}

async function pickBuilder(
  engine: BuildOptions['builder'],
  request: Omit<BuildRequest, 'workDirectory'>,
  { onEvent, signal }: WorkOptions,
): Promise<BuilderDriver> {
  const chosen = chooseBuilder(await detectBuilders({ signal }), { engine, request });
  const { driver, why } = chosen;
  onEvent?.({
    type: 'log',
    stage: 'build',
    stream: 'stderr',
    line: `builds go straight to an engine of this machine: ${why}`,
  });
  await removeLeftovers(driver, onEvent, signal);
  return driver;
}

/** What killed builds left in the engine; that it cannot be removed is no reason not to build. */
async function removeLeftovers(driver: BuilderDriver, onEvent?: OnEvent, signal?: AbortSignal): Promise<void> {
  try {
    await driver.cleanUpLeftovers({ signal });
  } catch (error) {
    signal?.throwIfAborted();
    if (!isDecantError(error)) throw error;
    onEvent?.({
      type: 'warning',
      stage: 'build',
      message: `What an earlier build left behind stays: ${error.message}`,
    });
  }
}

async function runBuild(
  driver: BuilderDriver,
  request: BuildRequest,
  { onEvent, signal }: WorkOptions,
): Promise<BuildResult> {
  const events = driver.build(request, { signal });
  for (;;) {
    const next = await events.next();
    if (next.done === true) return next.value;
    onEvent?.(next.value);
  }
}

function platformOf(text: string | undefined): 'linux/amd64' | 'linux/arm64' | undefined {
  if (text === undefined || text === 'linux/amd64' || text === 'linux/arm64') return text;
  throw new DecantError('USAGE', `There is no platform ${JSON.stringify(text)} to build for.`, {
    hint: 'Use linux/amd64 or linux/arm64.',
  });
}

/** The name of the context's directory as an image name. */
function defaultName(context: string): string {
  const slug = basename(resolve(context))
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  return slug === '' ? 'image' : slug;
}
