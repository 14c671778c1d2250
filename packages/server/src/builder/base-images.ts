import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { findStage, readDockerfile, stagesBuilt } from '@decant/context';
import { DecantError, isDecantError, type Namespace } from '@decant/core';
import { run } from '@decant/core/node';
import { formatReference, parseReference, writeOciLayout } from '@decant/oci';

import type { ImageSources } from './image-sources.ts';
import type { RunnerRequest } from './runner.ts';

/** An image that the Dockerfile builds on, as a layout in the inbox. */
export interface BaseImage {
  /** Name of the layout's directory. */
  readonly directory: string;
  /** What the engine is to know it by. */
  readonly name: string;
}

export interface FetchBasesOptions {
  readonly sources: ImageSources;
  readonly architecture: 'amd64' | 'arm64';
  readonly skipUnused: boolean;
  /** Existing directory that the layouts are written below. */
  readonly directory: string;
}

const MOST_BASES = 64;

/**
 * Fetches the images that the stages to be built name, since a confined build has no network to do it.
 * @throws BUILD_BASE_UNAVAILABLE naming the image, DOCKERFILE_INVALID.
 */
export async function fetchBases(request: RunnerRequest, options: FetchBasesOptions): Promise<readonly BaseImage[]> {
  const { fields, dockerfile, signal } = request;
  const platform = `linux/${options.architecture}`;
  const info = readDockerfile(dockerfile, { fileName: fields.dockerfile, buildArgs: fields.build_args, platform });
  const target = findStage(info.stages, fields.target);
  // A stage that does not exist is told by the check of the request.
  if (target === undefined) return [];
  const stages = stagesBuilt(info.stages, target, { skipUnused: options.skipUnused });
  const names = new Set(stages.flatMap(({ externalImages }) => externalImages).filter((name) => name !== 'scratch'));
  if (names.size > MOST_BASES) {
    throw new DecantError('DOCKERFILE_INVALID', `The Dockerfile builds on more than ${MOST_BASES} images.`);
  }
  const bases: BaseImage[] = [];
  for (const name of names) bases.push(await fetchBase(name, bases.length, request, options));
  signal.throwIfAborted();
  return bases;
}

async function fetchBase(
  name: string,
  index: number,
  { namespace, hosts, directory: scratch, onLine, signal }: RunnerRequest,
  { sources, architecture, directory }: FetchBasesOptions,
): Promise<BaseImage> {
  const layout = `base-${index}`;
  const scratchDirectory = join(scratch, layout);
  await mkdir(scratchDirectory);
  try {
    const { image: opened, place } = await sources.open(name, namespace as Namespace, {
      ...{ hosts, architecture, scratchDirectory, signal, ownFirst: true },
    });
    await using image = opened;
    onLine(`Base image ${name} from ${place === undefined ? parseReference(name).registry : 'this server'}`);
    await writeOciLayout(image, join(directory, layout), { signal });
    // The ids of the cell are nobody here.
    await run('chmod', ['-R', 'a+rX', join(directory, layout)], { signal });
    return { directory: layout, name: engineName(name) };
  } catch (error) {
    signal.throwIfAborted();
    if (!isDecantError(error)) throw error;
    throw new DecantError('BUILD_BASE_UNAVAILABLE', `The base image ${name} could not be had: ${error.message}`, {
      hint: error.hint,
      details: { image: name },
      cause: error,
    });
  }
}

/** The full name with a tag; one that is by digest is found by the digest beside whatever tag. */
function engineName(text: string): string {
  const reference = parseReference(text);
  return formatReference({ ...reference, tag: reference.tag ?? 'decant', digest: undefined });
}
