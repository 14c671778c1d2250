import { DecantError } from '@decant/core';

import { readNeeds, type DockerfileNeeds } from './dockerfile.ts';
import type { BuilderCapabilities, BuildEvent, BuildRequest } from './driver.ts';

/** Build arguments that need no ARG line. */
const PREDEFINED = /^((HTTP|HTTPS|FTP|NO|ALL)_PROXY|(http|https|ftp|no|all)_proxy|BUILDKIT_\w+|SOURCE_DATE_EPOCH)$/;
const FRONT_END =
  /^(docker\.io\/)?docker\/dockerfile(:1(\.\d+){0,2}(-labs)?|:latest|:labs|:experimental|:1-experimental)?$/;

export interface CheckedRequest {
  readonly needs: DockerfileNeeds;
  readonly warnings: readonly Extract<BuildEvent, { type: 'warning' }>[];
}

/**
 * Refuses what the engine cannot do before anything is sent or started.
 * @throws BUILD_PLATFORM_UNSUPPORTED, DOCKERFILE_UNSUPPORTED, DOCKERFILE_INVALID, USAGE.
 */
export function checkRequest(engine: string, capabilities: BuilderCapabilities, request: BuildRequest): CheckedRequest {
  const { dockerfile } = request.context;
  const needs = readNeeds(dockerfile);
  checkPlatforms(engine, capabilities, request, needs);
  const missing = missingFeatures(capabilities, needs)[0];
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
      hint: network === 'none' ? 'Install runc, which buildah needs for steps without a network.' : undefined,
      details: { network, supported: capabilities.networks },
    });
  }
  checkTarget(request, needs);
  checkSecrets(request, needs);
  return { needs, warnings: warningsOf(request, needs) };
}

/** What the Dockerfile uses and the engine lacks, by line. */
export function missingFeatures(capabilities: BuilderCapabilities, needs: DockerfileNeeds) {
  return [...needs.features]
    .filter(([feature]) => !capabilities.features.has(feature))
    .map(([feature, line]) => ({ feature, line }))
    .sort((a, b) => a.line - b.line);
}

function hintFor(feature: string): string {
  if (feature === 'RUN --mount' || feature === 'COPY --chmod') return 'Use docker with BuildKit, or buildah.';
  if (feature === 'heredoc')
    return 'Write the lines with && and \\, or COPY a script; Docker 23 and buildah 1.33 have them.';
  return 'Leave it out, or use a newer engine.';
}

function checkPlatforms(
  engine: string,
  capabilities: BuilderCapabilities,
  request: BuildRequest,
  needs: DockerfileNeeds,
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
  for (const [platform, line] of needs.platforms) {
    if (platform.includes('$')) continue;
    const [os, architecture] = platform.toLowerCase().split('/');
    const known = { x86_64: 'amd64', aarch64: 'arm64' }[architecture ?? ''] ?? architecture;
    if (`${os}/${known}` !== native && platform !== capabilities.architecture) {
      refuse(platform, ` (${request.context.dockerfile.displayPath}:${line})`);
    }
  }
}

function checkTarget(request: BuildRequest, needs: DockerfileNeeds): void {
  const { target } = request;
  if (target === undefined) return;
  const names = needs.stages.map(({ name }) => name).filter((name) => name !== undefined);
  const byNumber = /^\d+$/.test(target) && Number(target) < needs.stages.length;
  if (byNumber || names.some((name) => name.toLowerCase() === target.toLowerCase())) return;
  const { displayPath } = request.context.dockerfile;
  throw new DecantError('USAGE', `${displayPath} has no stage named ${JSON.stringify(target)}.`, {
    hint: names.length === 0 ? 'No stage has a name.' : `Its stages are ${names.join(', ')}.`,
    details: { target, stages: names },
  });
}

function checkSecrets(request: BuildRequest, needs: DockerfileNeeds): void {
  const given = new Set((request.secrets ?? []).map(({ id }) => id));
  for (const [id, line] of needs.secrets) {
    if (given.has(id)) continue;
    // An engine would run the step without the file, and the step may go on with nothing.
    throw new DecantError(
      'USAGE',
      `${request.context.dockerfile.displayPath}:${line} mounts the secret ${id}, which was not given.`,
      {
        hint: `Give a secret with the id ${id}, or take the mount out.`,
        details: { id, line },
      },
    );
  }
}

function warningsOf(request: BuildRequest, needs: DockerfileNeeds): CheckedRequest['warnings'] {
  const warnings: { type: 'warning'; stage: 'build'; message: string; hint?: string }[] = [];
  if (needs.syntax !== undefined) {
    const { displayPath } = request.context.dockerfile;
    if (!FRONT_END.test(needs.syntax)) {
      throw new DecantError('DOCKERFILE_UNSUPPORTED', `${displayPath} asks for the front end ${needs.syntax}.`, {
        hint: 'Local builds use the front end of the engine; take the syntax line out if it is enough.',
        details: { syntax: needs.syntax },
      });
    }
    const message = `The line "# syntax=${needs.syntax}" of ${displayPath} is not used: the engine's own front end reads it.`;
    warnings.push({ type: 'warning', stage: 'build', message });
  }
  for (const name of Object.keys(request.buildArgs ?? {})) {
    if (needs.args.has(name) || PREDEFINED.test(name)) continue;
    const message = `The build argument ${name} is given, but no ARG declares it.`;
    warnings.push({ type: 'warning', stage: 'build', message });
  }
  return warnings;
}
