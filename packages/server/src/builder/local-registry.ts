import type { Fetch, ImageName, Namespace } from '@decant/core';
import {
  openRegistryImage,
  parseReference,
  pushImage,
  type ImageReference,
  type OciImage,
  type Platform,
} from '@decant/oci';

import { OPERATOR } from '../auth.ts';
import type { MountedRegistry } from '../registry/registry.ts';
import { EMBEDDED_HOST } from '../services.ts';

/** The registry beside the services, for the services themselves. */
export interface LocalRegistry {
  /** Puts an image into a namespace's repository of that name; returns the digest of its manifest. */
  push(image: OciImage, namespace: Namespace, name: ImageName, signal: AbortSignal): Promise<string>;
  /** Opens an image of a repository of the namespace. @throws NOT_FOUND, OCI_PLATFORM_MISSING */
  open(
    namespace: Namespace,
    place: RepositoryPlace,
    options: { readonly platform?: Platform | undefined; readonly signal?: AbortSignal | undefined },
  ): Promise<OciImage>;
}

export interface RepositoryPlace {
  /** Path of the repository, without the namespace. */
  readonly name: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

export function createLocalRegistry(registry: MountedRegistry): LocalRegistry {
  const fetch: Fetch = (input, init) => registry.handle(new Request(input, init), OPERATOR);
  const reference = (namespace: Namespace, { name, tag, digest }: RepositoryPlace): ImageReference => ({
    registry: EMBEDDED_HOST,
    repository: `${namespace}/${name}`,
    tag,
    digest,
  });
  return {
    async push(image, namespace, { name, tag }, signal) {
      const { digest } = await pushImage(image, reference(namespace, { name, tag, digest: undefined }), {
        fetch,
        signal,
      });
      return digest;
    },
    open: (namespace, place, options) => openRegistryImage(reference(namespace, place), { fetch, ...options }),
  };
}

/**
 * The repository of a namespace that a reference means, as callers write it: `HOST/NAMESPACE/NAME[:TAG][@DIGEST]` with
 * a host that this server answers to. Undefined when it means another registry or namespace.
 */
export function placeOf(text: string, namespace: Namespace, hosts: readonly string[]): RepositoryPlace | undefined {
  const { registry, repository, tag, digest } = parseReference(text);
  if (!hosts.includes(registry) || !repository.startsWith(`${namespace}/`)) return undefined;
  return { name: repository.slice(namespace.length + 1), tag, digest };
}
