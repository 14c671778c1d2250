import { basename, resolve } from 'node:path';

import { parseImageName, slug } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';

import { buildImage, platformOf, type BuildImageRequest } from './build.ts';
import { filesystemFacts, type FilesystemRequest } from './filesystem-request.ts';
import { imageResult, makeImage } from './image-make.ts';
import type { ImageResult } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

export interface CreateImageRequest
  extends FilesystemRequest, Omit<BuildImageRequest, 'name' | 'platform' | 'streaming'> {
  /** `NAME[:TAG]`; default: the name of the context's directory. */
  readonly name?: string | undefined;
  /** `linux/amd64` or `linux/arm64`; default: this machine's, or what the service builds for. */
  readonly platform?: string | undefined;
}

/**
 * Builds a Dockerfile and makes the result an admitted, named image.
 * @throws what `buildImage` throws, and the errors of `import`.
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
  const buildStarted = performance.now();
  const { built, facts } = await buildImage(
    session,
    { ...request, name, platform, streaming: request.format === 'cas-streaming' },
    scratch.path,
    { onEvent, signal },
  );
  await using image = built;
  await using layers = await image.open({ limits: filesystem.limits, signal });
  const buildMs = Math.round(performance.now() - buildStarted);
  const { published, layoutMs } = await makeImage(
    session,
    layers,
    { name, ...filesystem, ...facts },
    { scratchDirectory: scratch.path, onEvent, signal },
  );
  const total = Math.round(performance.now() - started);
  return imageResult(session, published, { build: buildMs, layout: layoutMs, total }, signal);
}

/** The name of the context's directory as an image name. */
export function defaultName(context: string): string {
  return slug(basename(resolve(context))) || 'image';
}
