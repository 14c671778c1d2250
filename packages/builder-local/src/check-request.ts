import {
  findStage,
  readDockerfile,
  stagesBuilt,
  type DockerfileFeature,
  type DockerfileInfo,
  type DockerfileStage,
} from '@decant/context';
import { DecantError, quote } from '@decant/core';

import type { BuilderCapabilities, BuildEvent, BuildRequest } from './driver.ts';
import { checkLogins } from './registry-logins.ts';

/** Build arguments that need no ARG line. */
const PREDEFINED = /^((HTTP|HTTPS|FTP|NO|ALL)_PROXY|(http|https|ftp|no|all)_proxy|BUILDKIT_\w+|SOURCE_DATE_EPOCH)$/;
const FRONT_END =
  /^(docker\.io\/)?docker\/dockerfile(:1(\.\d+){0,2}(-labs)?|:latest|:labs|:experimental|:1-experimental)?$/;

type Warning = Extract<BuildEvent, { type: 'warning' }>;

/**
 * Refuses what the engine cannot do before anything is sent or started, and returns what is to be warned of.
 * Platforms and secrets count in the stages that run; parts of the language in all, as engines read the whole file.
 * @throws BUILD_PLATFORM_UNSUPPORTED, DOCKERFILE_UNSUPPORTED, DOCKERFILE_INVALID, USAGE.
 */
export function checkRequest(engine: string, capabilities: BuilderCapabilities, request: BuildRequest): Warning[] {
  const { dockerfile } = request.context;
  const native = `linux/${capabilities.architecture}`;
  const info = readDockerfile(dockerfile.bytes, {
    fileName: dockerfile.displayPath,
    buildArgs: request.buildArgs,
    platform: request.platform ?? native,
    buildPlatform: native,
  });
  const target = targetOf(request, info);
  const stages = stagesBuilt(info.stages, target, { skipUnused: capabilities.skipsUnusedStages });
  checkPlatforms(engine, capabilities, request, stages);
  const missing = missingFeatures(capabilities, info.features)[0];
  if (missing !== undefined) {
    const what = missing.feature === 'heredoc' ? 'here-documents' : missing.feature;
    throw new DecantError(
      'DOCKERFILE_UNSUPPORTED',
      `${dockerfile.displayPath}:${missing.line} uses ${what}, which ${engine} does not have.`,
      {
        hint: hintFor(missing.feature),
        details: { file: dockerfile.displayPath, line: missing.line, feature: missing.feature, engine },
      },
    );
  }
  const network = request.network ?? 'default';
  if (!capabilities.networks.includes(network)) {
    throw new DecantError('USAGE', `${engine} cannot build with the network mode ${network} here.`, {
      hint: network === 'none' ? 'Install runc, which buildah and podman need for steps without a network.' : undefined,
      details: { network, supported: capabilities.networks },
    });
  }
  if (request.reproducible === true && !capabilities.reproducible) {
    throw new DecantError('USAGE', `${engine} cannot give equal builds equal image ids.`, {
      hint: 'Use buildah or podman, or leave it out: decant makes equal filesystems of equal files all the same.',
      details: { engine },
    });
  }
  if (request.auth !== undefined) checkLogins(request.auth);
  checkSecrets(engine, capabilities, request, stages);
  return warningsOf(request, info);
}

/** What the Dockerfile uses and the engine lacks, by line. */
export function missingFeatures(capabilities: BuilderCapabilities, used: ReadonlyMap<DockerfileFeature, number>) {
  return [...used]
    .filter(([feature]) => !capabilities.features.has(feature))
    .map(([feature, line]) => ({ feature, line }))
    .sort((a, b) => a.line - b.line);
}

function hintFor(feature: string): string {
  if (feature === 'RUN --mount' || feature === 'COPY --chmod') return 'Use docker with BuildKit, buildah or podman.';
  if (feature === 'heredoc')
    return 'Write the lines with && and \\, or COPY a script; Docker 23, buildah 1.33 and podman 4.9 have them.';
  return 'Leave it out, or use a newer engine.';
}

function checkPlatforms(
  engine: string,
  capabilities: BuilderCapabilities,
  request: BuildRequest,
  stages: readonly DockerfileStage[],
): void {
  const native = `linux/${capabilities.architecture}`;
  const refuse = (platform: string, where: string) => {
    throw new DecantError(
      'BUILD_PLATFORM_UNSUPPORTED',
      `${engine} builds for ${native} only, not for ${platform}${where}.`,
      {
        hint: `Build on a machine of that architecture, or use a remote builder there.`,
        details: { platform, supported: [native] },
      },
    );
  };
  if (request.platform !== undefined && request.platform !== native) refuse(request.platform, '');
  for (const { platform, line } of stages) {
    if (platform === null) continue;
    const [os, architecture] = platform.toLowerCase().split('/');
    const known = { x86_64: 'amd64', aarch64: 'arm64' }[architecture ?? ''] ?? architecture;
    if (`${os}/${known}` !== native && platform !== capabilities.architecture) {
      refuse(platform, ` (${request.context.dockerfile.displayPath}:${line})`);
    }
  }
}

function targetOf(request: BuildRequest, { stages }: DockerfileInfo): DockerfileStage {
  const found = findStage(stages, request.target);
  if (found !== undefined) return found;
  const names = stages.map(({ name }) => name).filter((name) => name !== null);
  throw new DecantError(
    'USAGE',
    `${request.context.dockerfile.displayPath} has no stage named ${quote(request.target ?? '')}.`,
    {
      hint: names.length === 0 ? 'No stage has a name.' : `Its stages are ${names.join(', ')}.`,
      details: { target: request.target, stages: names },
    },
  );
}

function checkSecrets(
  engine: string,
  capabilities: BuilderCapabilities,
  request: BuildRequest,
  stages: readonly DockerfileStage[],
): void {
  const given = new Set((request.secrets ?? []).map(({ id }) => id));
  if (given.size > 0 && !capabilities.secrets) {
    throw new DecantError('USAGE', `${engine} cannot give secrets to steps.`, {
      hint: 'Use docker with BuildKit, buildah or podman.',
      details: { engine },
    });
  }
  const missing = stages.flatMap(({ secrets }) => secrets).find(({ id }) => !given.has(id));
  if (missing === undefined) return;
  const { id, line, required } = missing;
  // Where it is not required, an engine would run the step without the file, and the step may go on with nothing.
  throw new DecantError(
    'USAGE',
    `${request.context.dockerfile.displayPath}:${line} mounts the secret ${id}, which was not given.`,
    { hint: `Give a secret with the id ${id}, or take the mount out.`, details: { id, line, required } },
  );
}

function warningsOf(request: BuildRequest, { syntax, args }: DockerfileInfo): Warning[] {
  const warnings: Warning[] = [];
  if (syntax !== null) {
    const { displayPath } = request.context.dockerfile;
    if (!FRONT_END.test(syntax)) {
      throw new DecantError('DOCKERFILE_UNSUPPORTED', `${displayPath} asks for the front end ${syntax}.`, {
        hint: 'Local builds use the front end of the engine; take the syntax line out if it is enough.',
        details: { syntax },
      });
    }
    const message = `The line "# syntax=${syntax}" of ${displayPath} is not used: the engine's own front end reads it.`;
    warnings.push({ type: 'warning', stage: 'build', message });
  }
  for (const name of Object.keys(request.buildArgs ?? {})) {
    if (args.has(name) || PREDEFINED.test(name)) continue;
    const message = `The build argument ${name} is given, but no ARG declares it.`;
    warnings.push({ type: 'warning', stage: 'build', message });
  }
  return warnings;
}
