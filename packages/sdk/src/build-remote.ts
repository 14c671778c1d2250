import { randomUUID } from 'node:crypto';

import type { RemoteBuildResult } from '@decant/builder-remote';
import type { BuildContext } from '@decant/context/node';
import { parseImageName, type ProgressEvent } from '@decant/core';

import { remoteContextOf } from './build-context.ts';
import { openServiceImage } from './build-registry.ts';
import { architectureOf, type BuildImageRequest, type BuiltImage } from './build.ts';
import type { Session, WorkOptions } from './session.ts';

/** Builds at the image-builder of the service, which with an embedded server is in this process. */
export async function buildRemotely(
  session: Session,
  context: BuildContext,
  request: BuildImageRequest,
  scratchDirectory: string,
  { onEvent, signal }: WorkOptions,
): Promise<BuiltImage> {
  const { builder, embedded = false } = session.options;
  const here = embedded && builder === undefined;
  onEvent?.({
    type: 'log',
    stage: 'build',
    stream: 'stderr',
    line: here
      ? 'no server is named: the image-builder of this process builds, with an engine of this machine'
      : `the image-builder at ${session.builderAt.baseUrl} builds`,
  });
  const { name } = parseImageName(request.name);
  const architecture = request.platform === undefined ? request.architecture : architectureOf(request.platform);
  const events = session.builder().build(
    {
      context: remoteContextOf(context),
      // The layer cache goes by the name; the tag is of this build alone.
      imageName: `${name}:${randomUUID()}`,
      buildArgs: request.buildArgs,
      target: request.target,
      cache: request.cache,
      cacheKey: request.cacheKey,
      architecture,
      streamingImage: request.streaming,
      // In this process nothing travels, so there is nothing to save.
      ...(here ? { transfer: 'archive' as const } : {}),
    },
    { signal },
  );
  const upload = uploadStage((event) => onEvent?.(event));
  let result: RemoteBuildResult;
  for (;;) {
    const next = await events.next();
    if (next.done === true) {
      result = next.value;
      break;
    }
    upload(next.value);
  }
  upload(undefined);
  return {
    image: result.image,
    architecture: result.architecture,
    engine: result.engine,
    reference: result.image,
    open: (options) => openServiceImage(session, result.image, { ...options, scratchDirectory }),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

/** Passes events on, and makes what is told of the upload a stage with a beginning and an end. */
function uploadStage(onEvent: (event: ProgressEvent) => void): (event: ProgressEvent | undefined) => void {
  let started: number | undefined;
  let bytes = 0;
  return (event) => {
    if (event?.type === 'stage-progress' && event.stage === 'context') {
      if (started === undefined) onEvent({ type: 'stage-started', stage: 'context', message: 'sending' });
      started ??= performance.now();
      bytes = event.bytes ?? bytes;
    } else if (started !== undefined) {
      const elapsedMs = Math.round(performance.now() - started);
      onEvent({ type: 'stage-finished', stage: 'context', message: 'sent', bytes, elapsedMs });
      started = undefined;
    }
    if (event !== undefined) onEvent(event);
  };
}
