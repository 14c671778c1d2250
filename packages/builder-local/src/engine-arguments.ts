import { findStage, readDockerfile, type DockerfileInfo } from '@decant/context';

import type { Architecture, BuildRequest } from './driver.ts';

/** The value of `--target`: engines know a stage that has a name by that name only, not by its index. */
export function engineTarget(request: Pick<BuildRequest, 'context' | 'buildArgs' | 'target'>): string | undefined {
  const { target } = request;
  if (target === undefined || !/^\d+$/.test(target)) return target;
  return findStage(infoOf(request).stages, target)?.name ?? target;
}

/**
 * What BuildKit, buildah and podman give a Dockerfile that declares these arguments, and the classic builder does not:
 * to it they would be empty, without a word.
 */
export function platformArguments(
  request: Pick<BuildRequest, 'context' | 'buildArgs'>,
  architecture: Architecture,
): Readonly<Record<string, string>> {
  const { args } = infoOf(request);
  const facts = { PLATFORM: `linux/${architecture}`, OS: 'linux', ARCH: architecture };
  const all = ['TARGET', 'BUILD'].flatMap((side) =>
    Object.entries(facts).map(([name, value]): [string, string] => [side + name, value]),
  );
  return Object.fromEntries(all.filter(([name]) => args.has(name) && request.buildArgs?.[name] === undefined));
}

function infoOf({ context, buildArgs }: Pick<BuildRequest, 'context' | 'buildArgs'>): DockerfileInfo {
  return readDockerfile(context.dockerfile.bytes, { fileName: context.dockerfile.displayPath, buildArgs });
}
