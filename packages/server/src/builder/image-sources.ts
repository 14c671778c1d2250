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

/** An image that a caller named, and where it is in the registry of this server if it is there. */
export interface NamedSource {
  readonly image: OciImage;
  readonly place: RepositoryPlace | undefined;
}

export interface OpenSourceOptions {
  /** Hosts that this server answers to. */
  readonly hosts: readonly string[];
  readonly architecture?: 'amd64' | 'arm64' | undefined;
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
  return {
    async open(reference, namespace, { hosts, architecture, scratchDirectory, signal }) {
      const place = placeOf(reference, namespace, hosts);
      const parsed = parseReference(reference);
      if (place === undefined && hosts.includes(parsed.registry)) throw notThere(reference);
      if (place === undefined && !baseRegistries.includes(parsed.registry)) {
        throw new DecantError('FORBIDDEN', `Images of the registry ${parsed.registry} are not taken here.`, {
          hint: `Push the image to ${hosts[0] ?? 'this server'}/${namespace}/ first, or use one of: ${baseRegistries.join(', ')}.`,
          details: { registry: parsed.registry },
        });
      }
      const platform: Platform | undefined = architecture === undefined ? undefined : { os: 'linux', architecture };
      try {
        const image =
          place === undefined
            ? await openRegistryImage(parsed, { fetch, platform, scratchDirectory, signal })
            : await registry.open(namespace, place, { platform, signal });
        return { image, place };
      } catch (error) {
        signal?.throwIfAborted();
        throw sourceError(error, reference, architecture);
      }
    },
  };
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
