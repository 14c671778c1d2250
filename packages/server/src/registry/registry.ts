import { parseNamespace, toDecantError, type DecantError, type Namespace } from '@decant/core';
import { namespacePrefix } from '@decant/ingest';
import { createRegistryHandler, type RegistryHandler } from '@decant/oci';

import type { OPERATOR } from '../auth.ts';
import type { Services } from '../services.ts';
import { authenticateRegistry } from './credentials.ts';

export interface RegistryMountOptions {
  readonly onError?: ((error: DecantError, request: Request) => void) | undefined;
}

/**
 * The registry below `/v2/`. A repository is `NAMESPACE/NAME`, and its objects are the namespace's own: two
 * namespaces share no blob, and each sees nothing of the other. Whoever has no valid key or credentials is asked
 * for basic authentication, which docker, podman, buildah and skopeo have.
 */
export function createRegistry(
  services: Pick<Services, 'metadata' | 'store'>,
  { onError }: RegistryMountOptions = {},
): (request: Request, operator?: typeof OPERATOR) => Promise<Response> {
  const { metadata, store } = services;
  // Kept, because a handler knows which uploads are being written to.
  const handlers = new Map<Namespace, RegistryHandler>();
  const report = (error: unknown, request: Request) => onError?.(toDecantError(error), request);
  const closed = createRegistryHandler({ store, authorize: async () => 'unauthenticated' });

  const handlerOf = (namespace: Namespace): RegistryHandler => {
    let handler = handlers.get(namespace);
    if (handler === undefined) {
      handler = createRegistryHandler({
        store,
        prefix: `${namespacePrefix(namespace)}registry/`,
        authorize: async (_, repository) =>
          repository === undefined || repository.startsWith(`${namespace}/`) ? 'allow' : 'hide',
        onError: report,
      });
      handlers.set(namespace, handler);
    }
    return handler;
  };

  return async (request, operator) => {
    if (operator !== undefined) return handlerOf(namespaceIn(request) ?? operator.namespace)(request);
    const principal = await authenticateRegistry(metadata, request.headers.get('authorization'));
    return (principal === undefined ? closed : handlerOf(principal.namespace))(request);
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
