import {
  chooseBuilder,
  detectBuilders,
  type BuilderDriver,
  type BuildRequest,
  type BuildResult,
  type BuildSource,
} from '@decant/builder-local';
import { materializeContext, type BuildContext } from '@decant/context/node';
import { isDecantError, type OnEvent } from '@decant/core';
import { openDockerArchive } from '@decant/oci';

import type { BuiltImage, BuildImageRequest } from './build.ts';
import type { WorkOptions } from './session.ts';

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
  const driver = await pickBuilder(source, { onEvent, signal });
  const { buildArgs, target, platform } = request;
  const result = await runBuild(
    driver,
    { context: source, buildArgs, target, platform, workDirectory: scratchDirectory },
    { onEvent, signal },
  );
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

async function pickBuilder(context: BuildSource, { onEvent, signal }: WorkOptions): Promise<BuilderDriver> {
  const chosen = chooseBuilder(await detectBuilders({ signal }), { request: { context } });
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
