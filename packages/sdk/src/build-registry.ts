import { registryLoginSchema, type Fetch } from '@decant/core';
import { openRegistryImage, parseReference, pushImage, type CredentialLookup, type OciImage } from '@decant/oci';

import type { OpenBuiltOptions } from './build.ts';
import { registryCredentials } from './image-transfer-credentials.ts';
import type { Session, WorkOptions } from './session.ts';

/** Namespace of whoever holds the data directory of an embedded server. */
const EMBEDDED_NAMESPACE = 'default';

/** Who answers for a registry's host: the image-builder or the API, or none of them. */
function serviceOf({ options, builderAt }: Session, host: string): Session['builderAt'] | undefined {
  return [builderAt, options].find(({ baseUrl }) => new URL(baseUrl).host === host);
}

/**
 * A fetch for a registry client: what goes to the service's host goes by the scheme of the service, which need not be
 * the one that registries have by default.
 */
function serviceFetch({ baseUrl, fetch }: Session['builderAt']): Fetch {
  const service = new URL(baseUrl);
  return (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    if (url.host !== service.host || url.protocol === service.protocol) return fetch(input, init);
    url.protocol = service.protocol;
    return fetch(input instanceof Request ? new Request(url, input) : url, init);
  };
}

/** Opens an image of the registry beside the image-builder. @throws the errors of registries. */
export function openServiceImage(
  session: Session,
  image: string,
  options: OpenBuiltOptions & { readonly scratchDirectory: string },
): Promise<OciImage> {
  const reference = parseReference(image);
  const service = serviceOf(session, reference.registry);
  const credentials: CredentialLookup =
    service === undefined
      ? registryCredentials(session)
      : async (registry) =>
          service.token === undefined || registry !== reference.registry
            ? undefined
            : { kind: 'password', username: 'decant', password: service.token };
  return openRegistryImage(reference, {
    fetch: serviceFetch(service ?? session.builderAt),
    credentials,
    ...options,
  });
}

/**
 * Pushes an image to the service's registry, with credentials that the service gives out for it; returns the reference
 * by which the service knows it.
 */
export async function pushToService(
  session: Session,
  image: OciImage,
  name: string,
  { onEvent, signal }: WorkOptions,
): Promise<string> {
  const { embedded = false, baseUrl } = session.options;
  const login = embedded
    ? undefined
    : await session.client.json(registryLoginSchema, 'POST', '/v1/container-registries/default/credentials', {
        signal,
      });
  const place = login?.registry_url ?? `${new URL(baseUrl).host}/${EMBEDDED_NAMESPACE}`;
  const reference = `${place.replace(/^https?:\/\//, '').replace(/\/$/, '')}/${name}`;
  const credentials: CredentialLookup = async () =>
    login === undefined ? undefined : { kind: 'password', username: login.username, password: login.password };
  const options = { fetch: serviceFetch({ baseUrl, fetch: session.fetch }), credentials, onEvent, signal };
  const { digest } = await pushImage(image, parseReference(reference), options);
  return `${reference}@${digest}`;
}
