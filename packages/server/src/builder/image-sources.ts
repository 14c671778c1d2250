import { DecantError, isDecantError, quote, type Fetch, type Namespace } from '@decant/core';
import { openRegistryImage, parseReference, type OciImage, type Platform } from '@decant/oci';

import { placeOf, type LocalRegistry, type RepositoryPlace } from './local-registry.ts';

/** Registries that the service itself pulls public images from, unless it is told otherwise. */
export const DEFAULT_BASE_REGISTRIES: readonly string[] = [
  'docker.io',
  'gcr.io',
  'ghcr.io',
  'mcr.microsoft.com',
  'public.ecr.aws',
  'quay.io',
  'registry.k8s.io',
];

export interface ImageSourcesOptions {
  readonly registry: LocalRegistry;
  readonly fetch: Fetch;
  /** Hosts of registries that may be asked, without credentials; all others are refused. */
  readonly baseRegistries: readonly string[];
}

const DOCKER_HUB = 'docker.io';

/** An image that a caller named, and where it is in the registry of this server if it is there. */
export interface NamedSource {
  readonly image: OciImage;
  readonly place: RepositoryPlace | undefined;
}

export interface OpenSourceOptions {
  /** Hosts that this server answers to. */
  readonly hosts: readonly string[];
  readonly architecture?: 'amd64' | 'arm64' | undefined;
  /** Looks for a name without a registry among the namespace's own images first; default false. */
  readonly ownFirst?: boolean | undefined;
  /** Given, layers are downloaded once into files here. */
  readonly scratchDirectory?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Opens images that callers name: of the registry beside this service, or of a registry that is allowed. */
export interface ImageSources {
  /**
   * @throws NAME_INVALID; NOT_FOUND, also for what is another namespace's; FORBIDDEN for a registry that is not allowed;
   * BUILD_PLATFORM_UNSUPPORTED when the image is not of the architecture.
   */
  open(reference: string, namespace: Namespace, options: OpenSourceOptions): Promise<NamedSource>;
}

export function createImageSources(options: ImageSourcesOptions): ImageSources {
  const { registry, fetch, baseRegistries } = options;
  const checkAllowed = (host: string, namespace: Namespace, hosts: readonly string[]) => {
    if (baseRegistries.includes(host)) return;
    throw new DecantError('FORBIDDEN', `Images of the registry ${host} are not taken here.`, {
      hint: `Push the image to ${hosts[0] ?? 'this server'}/${namespace}/ first, or use one of: ${baseRegistries.join(', ')}.`,
      details: { registry: host },
    });
  };
  const openOwn = async (
    namespace: Namespace,
    place: RepositoryPlace,
    opening: Pick<OpenSourceOptions, 'signal'> & { readonly platform: Platform | undefined },
  ): Promise<OciImage | undefined> => {
    try {
      return await registry.open(namespace, place, opening);
    } catch (error) {
      if (isDecantError(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  };
  return {
    async open(reference, namespace, { hosts, architecture, ownFirst, scratchDirectory, signal }) {
      const place = placeOf(reference, namespace, hosts) ?? (ownFirst === true ? ownPlace(reference) : undefined);
      const parsed = parseReference(reference);
      if (place === undefined && hosts.includes(parsed.registry)) throw notThere(reference);
      const platform: Platform | undefined = architecture === undefined ? undefined : { os: 'linux', architecture };
      try {
        if (place !== undefined) {
          const image = await openOwn(namespace, place, { platform, signal });
          if (image !== undefined) return { image, place };
          if (hosts.includes(parsed.registry)) throw notThere(reference);
        }
        checkAllowed(parsed.registry, namespace, hosts);
        return {
          image: await openRegistryImage(parsed, { fetch, platform, scratchDirectory, signal }),
          place: undefined,
        };
      } catch (error) {
        signal?.throwIfAborted();
        throw sourceError(error, reference, architecture);
      }
    },
  };
}

/** The namespace's own repository of a name that is written without a registry. */
function ownPlace(reference: string): RepositoryPlace | undefined {
  const { registry, repository, tag, digest } = parseReference(reference);
  if (registry !== DOCKER_HUB || reference.startsWith(`${DOCKER_HUB}/`)) return undefined;
  return { name: repository.replace(/^library\//, ''), tag, digest };
}

function sourceError(error: unknown, reference: string, architecture: string | undefined): unknown {
  if (isDecantError(error, 'NOT_FOUND')) return notThere(reference);
  if (isDecantError(error, 'OCI_PLATFORM_MISSING') && architecture !== undefined) {
    return new DecantError('BUILD_PLATFORM_UNSUPPORTED', `The image ${quote(reference)} is not for ${architecture}.`, {
      hint: error.hint ?? 'Build it for that architecture, or ask for the one it has.',
      details: { path: ['architecture'] },
      cause: error,
    });
  }
  return error;
}

function notThere(reference: string): DecantError {
  return new DecantError('NOT_FOUND', `There is no image ${quote(reference)}.`);
}
