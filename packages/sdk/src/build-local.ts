import {
  chooseBuilder,
  detectBuilders,
  type BuilderDriver,
  type BuilderName,
  type BuildRequest,
  type BuildResult,
  type BuildSecret,
  type BuildSource,
  type NetworkMode,
  type RegistryLogins,
} from '@decant/builder-local';
import { materializeContext, type BuildContext } from '@decant/context/node';
import { DecantError, isDecantError, type OnEvent } from '@decant/core';
import { openDockerArchive } from '@decant/oci';

import type { BuiltImage, BuildImageRequest } from './build.ts';
import type { WorkOptions } from './session.ts';

/** How an engine of this machine builds. */
export interface EngineRequest {
  /** The only engine to use; `docker` also means BuildKit in docker. Default `auto`: the best that answers. */
  readonly builder?: 'auto' | BuilderName | undefined;
  readonly secrets?: readonly BuildSecret[] | undefined;
  /** Network of RUN steps; default `default`. */
  readonly network?: NetworkMode | undefined;
  /** Logins for the registries of base images, for this build alone. */
  readonly auth?: RegistryLogins | undefined;
}

/** @throws USAGE for what no service can be told. */
export function checkEngineRequest({ builder, secrets = [], network, auth }: EngineRequest = {}): void {
  const given = [
    ...(builder === undefined ? [] : ['an engine']),
    ...(secrets.length === 0 ? [] : ['secrets']),
    ...(network === undefined ? [] : ['a network']),
    ...(auth === undefined ? [] : ['logins for registries']),
  ];
  if (given.length === 0) return;
  throw new DecantError('USAGE', `The image-builder cannot be given ${given.join(', ')}.`, {
    hint: 'Build with an engine of this machine: --local, or DECANT_LOCAL_BUILD=1.',
  });
}

/** Builds straight with an engine of this machine. */
export async function buildLocally(
  context: BuildContext,
  request: BuildImageRequest,
  scratchDirectory: string,
  { onEvent, signal }: WorkOptions,
): Promise<BuiltImage> {
  const source: BuildSource = {
    dockerfile: context.dockerfile,
    materialize: (directory, options) => materializeContext(context, directory, options),
  };
  const { buildArgs, target, platform, cache } = request;
  const { builder, secrets, network, auth } = request.engine ?? {};
  const wanted = { context: source, buildArgs, target, platform, cache, secrets, network, auth };
  const driver = await pickBuilder(builder, wanted, { onEvent, signal });
  const result = await runBuild(driver, { ...wanted, workDirectory: scratchDirectory }, { onEvent, signal });
  return {
    image: result.image,
    architecture: result.architecture,
    engine: result.engine,
    reference: undefined,
    async open(options) {
      const { file } = await result.exportImage(scratchDirectory, options);
      return openDockerArchive(file, options);
    },
    [Symbol.asyncDispose]: () => result[Symbol.asyncDispose](),
  };
}

async function pickBuilder(
  engine: EngineRequest['builder'],
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
