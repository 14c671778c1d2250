import type { DockerfileFeature } from '@decant/context';

import { inOwnNamespaces } from './confine.ts';
import { engineTarget } from './engine-arguments.ts';
import type { Architecture, BuildRequest } from './driver.ts';
import type { BuildFiles } from './build-files.ts';

/** Where an engine without a daemon keeps its images and state; the same for buildah and podman. */
export interface StorageOptions {
  /** Path of the program; default: the one on PATH. */
  readonly program?: string | undefined;
  /** Where images are kept (`--root`); default: the engine's own. */
  readonly storageRoot?: string | undefined;
  /** Where its state of this boot is kept (`--runroot`); default: the engine's own. */
  readonly runRoot?: string | undefined;
  readonly storageDriver?: 'overlay' | 'vfs' | undefined;
  /** Variables on top of this process's environment. */
  readonly env?: Readonly<Record<string, string>> | undefined;
}

/** What the engine said of itself. */
export interface StorageFacts {
  readonly program: string;
  readonly version: string;
  readonly architecture: Architecture;
  readonly graphRoot: string;
  readonly graphDriver: string;
  readonly rootless: boolean;
  /** Path of runc, which steps without a network need: crun fails on machines with hybrid cgroups. */
  readonly runc: string | undefined;
}

/** Where the command lines of buildah and podman differ. */
export interface StorageDialect {
  readonly name: 'buildah' | 'podman';
  /** The build command; `runtime` is the one for steps in containers. */
  build(runtime: string | undefined): readonly string[];
  /** Describes the engine and its storage as JSON. */
  readonly info: readonly string[];
  /** Removes working containers, mounted or not; their ids follow. */
  readonly removeContainers: readonly string[];
  /** Prints the architecture of an image, and no more. */
  architecture(id: string): readonly string[];
  /** Succeeds when the image is there. */
  exists(reference: string): readonly string[];
  /** What a failure says when the image is not there; undefined when the exit status 1 says so. */
  readonly absent: RegExp;
  features(version: string): ReadonlySet<DockerfileFeature>;
  skipsUnusedStages(version: string): boolean;
}

const versionOf = (version: string): readonly [number, number] => {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return [major, minor];
};

/** Front end features by version; here-documents came with 1.33. */
export function buildahFeatures(version: string): ReadonlySet<DockerfileFeature> {
  const [major, minor] = versionOf(version);
  const features: DockerfileFeature[] = ['RUN --mount', 'COPY --chmod'];
  if (major > 1 || minor >= 33) features.push('heredoc');
  return new Set(features);
}

/** podman 4.9 brought buildah 1.33 with it. */
export function podmanFeatures(version: string): ReadonlySet<DockerfileFeature> {
  const [major, minor] = versionOf(version);
  return buildahFeatures(major > 4 || (major === 4 && minor >= 9) ? '1.33.0' : '1.28.0');
}

export const BUILDAH: StorageDialect = {
  name: 'buildah',
  build: (runtime) => ['bud', ...(runtime === undefined ? [] : ['--runtime', runtime])],
  info: ['info'],
  removeContainers: ['rm'],
  architecture: (id) => ['inspect', '--type', 'image', '--format', '{{.OCIv1.Architecture}}', id],
  exists: (reference) => ['inspect', '--type', 'image', '--format', '{{.Type}}', reference],
  absent: /image not known/i,
  features: buildahFeatures,
  // `--skip-unused-stages` is on by default where buildah has it; 1.28.2 does.
  skipsUnusedStages(version) {
    const [major, minor] = versionOf(version);
    return major > 1 || (major === 1 && minor >= 28);
  },
};

export const PODMAN: StorageDialect = {
  name: 'podman',
  // Its runtime is an option of the program, in front of the command.
  build: (runtime) => [...(runtime === undefined ? [] : ['--runtime', runtime]), 'build'],
  info: ['info', '--format', 'json'],
  removeContainers: ['rm', '--force'],
  architecture: (id) => ['image', 'inspect', '--format', '{{.Architecture}}', id],
  exists: (reference) => ['image', 'inspect', '--format', '{{.Id}}', reference],
  absent: /image not known/i,
  features: podmanFeatures,
  skipsUnusedStages(version) {
    const [major, minor] = versionOf(version);
    return major > 4 || (major === 4 && minor >= 3);
  },
};

/** The options of every command. */
export function storageArguments(options: StorageOptions): string[] {
  const args: string[] = [];
  if (options.storageRoot !== undefined) args.push('--root', options.storageRoot);
  if (options.runRoot !== undefined) args.push('--runroot', options.runRoot);
  if (options.storageDriver !== undefined) args.push('--storage-driver', options.storageDriver);
  return args;
}

/**
 * A command line of the engine in namespaces of its own, so that nothing it starts or mounts outlives it. An
 * ordinary user enters through the engine's `unshare`, which maps the user's subordinate ids.
 */
export function storageCommand(program: string, options: StorageOptions, rootless: boolean, args: readonly string[]) {
  const storage = storageArguments(options);
  const enter = rootless ? [program, ...storage, 'unshare'] : [];
  return inOwnNamespaces([program, ...storage, ...args], enter);
}

/** What of a build is prepared before its command line is made. */
export interface StorageBuild {
  readonly mark: string;
  /** Values of `--secret`. */
  readonly secrets: readonly string[];
  readonly authFile: string | undefined;
}

/** The arguments of a build, without those of the storage. */
export function storageBuildArguments(
  dialect: StorageDialect,
  request: BuildRequest,
  files: BuildFiles,
  facts: Pick<StorageFacts, 'rootless' | 'runc'>,
  { mark, secrets, authFile }: StorageBuild,
): string[] {
  const isolated = request.network === 'none';
  const args = [...dialect.build(isolated ? (facts.runc ?? 'runc') : undefined)];
  // The docker format keeps SHELL and HEALTHCHECK, which the OCI configuration has no place for; but it also names
  // the container of a step, and the cache's intermediate images have random names, which the history shows.
  const form =
    request.reproducible === true
      ? ['--format', 'oci', '--layers=false', '--timestamp', '0']
      : ['--format', 'docker', '--layers'];
  args.push(...form, '--force-rm', '--iidfile', files.imageIdFile);
  if (isolated) args.push('--isolation', facts.rootless ? 'rootless' : 'oci', '--network', 'none');
  // Steps share the machine's network; the other kinds of isolation need plug-ins for one of their own.
  else args.push('--isolation', 'chroot');
  // Nothing mounts this secret. It is recorded with each working container, and so says whose the container is.
  args.push('--secret', `id=${mark},src=/dev/null`);
  args.push('--file', files.dockerfile);
  // It leaves what is in the cache, which is found first: `refresh` then removes that.
  if (request.cache !== undefined && request.cache !== 'use') args.push('--no-cache');
  if (authFile !== undefined) args.push('--authfile', authFile);
  const target = engineTarget(request);
  if (target !== undefined) args.push('--target', target);
  for (const [name, value] of Object.entries(request.buildArgs ?? {})) args.push('--build-arg', `${name}=${value}`);
  for (const secret of secrets) args.push('--secret', secret);
  if (request.tag !== undefined) args.push('--tag', withHost(request.tag));
  args.push(files.context);
  return args;
}

/** A name without a registry gets `localhost/`, where buildah looks first when FROM gives a short name. */
export function withHost(reference: string): string {
  const slash = reference.indexOf('/');
  const first = slash < 0 ? '' : reference.slice(0, slash);
  return first === 'localhost' || /[.:]/.test(first) ? reference : `localhost/${reference}`;
}

export function withTag(reference: string): string {
  return reference.includes(':', reference.lastIndexOf('/') + 1) ? reference : `${reference}:latest`;
}
