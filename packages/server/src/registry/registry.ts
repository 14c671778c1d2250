import { parseNamespace, toDecantError, type DecantError, type Namespace } from '@decant/core';
import { namespacePrefix } from '@decant/ingest';
import {
  createRegistry as createOciRegistry,
  type CollectRegistryOptions,
  type Registry,
  type RegistryCollection,
  type RegistryLimits,
} from '@decant/oci';

import type { OPERATOR } from '../auth.ts';
import type { Services } from '../services.ts';
import { authenticateRegistry } from './credentials.ts';

/** The registry of all namespaces. One for each process: it knows which blobs are in use while a collection runs. */
export interface MountedRegistry {
  handle(request: Request, operator?: typeof OPERATOR): Promise<Response>;
  /** Reclaims the bytes that nothing in a namespace needs any more. */
  collect(namespace: Namespace, options?: CollectRegistryOptions): Promise<RegistryCollection>;
}

export interface RegistryMountOptions {
  readonly limits?: Partial<RegistryLimits> | undefined;
  readonly onError?: ((error: DecantError, request: Request) => void) | undefined;
}

/**
 * The registry below `/v2/`. A repository is `NAMESPACE/NAME`, and its objects are the namespace's own: two
 * namespaces share no blob, and each sees nothing of the other. Whoever has no valid key or credentials is asked
 * for basic authentication, which docker, podman, buildah and skopeo have.
 */
export function createRegistry(
  services: Pick<Services, 'metadata' | 'store'>,
  { limits, onError }: RegistryMountOptions = {},
): MountedRegistry {
  const { metadata, store } = services;
  // Kept, because a registry knows which uploads and blobs are in use.
  const registries = new Map<Namespace, Registry>();
  const report = (error: unknown, request: Request) => onError?.(toDecantError(error), request);
  const closed = createOciRegistry({ store, authorize: async () => 'unauthenticated' });

  const registryOf = (namespace: Namespace): Registry => {
    let registry = registries.get(namespace);
    if (registry === undefined) {
      registry = createOciRegistry({
        store,
        prefix: `${namespacePrefix(namespace)}registry/`,
        authorize: async (_, repository) =>
          repository === undefined || repository.startsWith(`${namespace}/`) ? 'allow' : 'hide',
        limits,
        onError: report,
      });
      registries.set(namespace, registry);
    }
    return registry;
  };

  return {
    async handle(request, operator) {
      if (operator !== undefined) return registryOf(namespaceIn(request) ?? operator.namespace).handle(request);
      const principal = await authenticateRegistry(metadata, request.headers.get('authorization'));
      return (principal === undefined ? closed : registryOf(principal.namespace)).handle(request);
    },
    collect: (namespace, options) => registryOf(namespace).collect(options),
  };
}

/** The namespace that a path names; undefined when it names none. */
function namespaceIn(request: Request): Namespace | undefined {
  const [, first] = /^\/v2\/([^/]+)\/./.exec(new URL(request.url).pathname) ?? [];
  try {
    return first === undefined ? undefined : parseNamespace(first);
  } catch {
    return undefined;
  }
}
