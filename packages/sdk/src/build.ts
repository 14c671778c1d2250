import { findStage, readDockerfile, stagesBuilt, type DockerfileStage } from '@decant/context';
import { DecantError, parseImageName, quote, stage } from '@decant/core';
import { formatPlatform, hostPlatform, type OciImage, type OciLimits } from '@decant/oci';

import { readContext } from './build-context.ts';
import { buildLocally, checkEngineRequest, type EngineRequest } from './build-local.ts';
import { buildRemotely } from './build-remote.ts';
import type { Session, WorkOptions } from './session.ts';

export interface BuildImageRequest {
  /** Directory with what the Dockerfile copies. */
  readonly context: string;
  /** Default: `Dockerfile` in the context. */
  readonly dockerfile?: string | undefined;
  /** `NAME[:TAG]`; at a service, builds of one name share a layer cache. */
  readonly name: string;
  readonly buildArgs?: Readonly<Record<string, string>> | undefined;
  readonly target?: string | undefined;
  /** Default: that of what builds it, this machine or the service. */
  readonly platform?: 'linux/amd64' | 'linux/arm64' | undefined;
  /** Straight with an engine of this machine; default: through the service's image-builder. */
  readonly local?: boolean | undefined;
  /** Architecture that an image of the service must have, where `platform` says nothing. */
  readonly architecture?: 'amd64' | 'arm64' | undefined;
  /** `ignore` runs every step and keeps the layer cache, `refresh` replaces it; default `use`. */
  readonly cache?: 'use' | 'ignore' | 'refresh' | undefined;
  /** Builds with the same key share the service's layer cache; default: the name. Local engines have one cache. */
  readonly cacheKey?: string | undefined;
  /** What only an engine of this machine can be told; with it `local` must be true. */
  readonly engine?: EngineRequest | undefined;
  /** Whether registration is to make a streaming image of it. */
  readonly streaming: boolean;
}

export interface OpenBuiltOptions {
  readonly limits?: Partial<OciLimits> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A built image, whoever built it. Disposing of it removes what it keeps on this machine. */
export interface BuiltImage extends AsyncDisposable {
  /** The engine's id of the image, or its reference in the service's registry. */
  readonly image: string;
  readonly architecture: 'amd64' | 'arm64';
  /** For people. */
  readonly engine: string;
  /** Its name in the service's registry, when it is there already. */
  readonly reference: string | undefined;
  open(options: OpenBuiltOptions): Promise<OciImage>;
}

/** What a build is made of besides its files, for what follows it. */
export interface BuildFacts {
  readonly dockerfile: string;
  /** The image that the last stage begins with. */
  readonly baseImage: string;
}

/**
 * Builds a Dockerfile: the one place where it is decided who builds. What follows does not ask.
 * @throws BUILD_ENGINE_MISSING, BUILD_STEP_FAILED, the errors of contexts and Dockerfiles, and of the service.
 */
export async function buildImage(
  session: Session,
  request: BuildImageRequest,
  scratchDirectory: string,
  work: WorkOptions,
): Promise<{ readonly built: BuiltImage; readonly facts: BuildFacts }> {
  parseImageName(request.name);
  if (request.local !== true) checkEngineRequest(request.engine);
  const context = await readContext(request, work);
  const dockerfile = new TextDecoder().decode(context.dockerfile.bytes);
  // Whatever builds it: a Dockerfile that cannot be understood is not sent anywhere.
  const { stages } = readDockerfile(dockerfile, {
    fileName: context.dockerfile.displayPath,
    buildArgs: request.buildArgs,
    platform: request.platform ?? formatPlatform(hostPlatform()),
  });
  if (request.local !== true) refuseSecrets(stages, request.target, context.dockerfile.displayPath);
  const built = await stage(work.onEvent, 'build', async (finish) => {
    const image =
      request.local === true
        ? await buildLocally(context, request, scratchDirectory, work)
        : await buildRemotely(session, context, request, scratchDirectory, work);
    finish({ message: `${shownId(image.image)} by ${image.engine}` });
    return image;
  });
  return { built, facts: { dockerfile, baseImage: stages.at(-1)?.base ?? '' } };
}

/** No service can be given a secret, so a step that cannot do without one is refused before anything is sent. */
function refuseSecrets(stages: readonly DockerfileStage[], target: string | undefined, file: string): void {
  const last = findStage(stages, target);
  const built = last === undefined ? [] : stagesBuilt(stages, last, { skipUnused: true });
  const needed = built.flatMap(({ secrets }) => secrets).find(({ required }) => required);
  if (needed === undefined) return;
  const what = `${file}:${needed.line} needs the secret ${quote(needed.id)}`;
  throw new DecantError('USAGE', `${what}, and the image-builder cannot be given secrets.`, {
    hint: 'Build with an engine of this machine: --local, or DECANT_LOCAL_BUILD=1.',
    details: { file, line: needed.line, secret: needed.id },
  });
}

function shownId(image: string): string {
  const digest = /sha256:[0-9a-f]{12}/.exec(image)?.[0];
  return digest ?? image;
}

/** @throws USAGE for a platform that nothing here builds for. */
export function platformOf(text: string | undefined): 'linux/amd64' | 'linux/arm64' | undefined {
  if (text === undefined || text === 'linux/amd64' || text === 'linux/arm64') return text;
  throw new DecantError('USAGE', `There is no platform ${JSON.stringify(text)} to build for.`, {
    hint: 'Use linux/amd64 or linux/arm64.',
  });
}

export function architectureOf(platform: 'linux/amd64' | 'linux/arm64'): 'amd64' | 'arm64' {
  return platform === 'linux/arm64' ? 'arm64' : 'amd64';
}
