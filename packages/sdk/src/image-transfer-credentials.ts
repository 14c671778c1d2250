import { dockerCredentials, type CredentialLookup } from '@decant/oci';

import type { Session } from './session.ts';

/** The session's API key for the registry of the server it talks to; the logins of docker for all others. */
export function registryCredentials({ options }: Session): CredentialLookup {
  const { baseUrl, token } = options;
  const docker = dockerCredentials();
  return async (registry, lookup) => {
    if (token === undefined || registry !== new URL(baseUrl).host) return docker(registry, lookup);
    return {
      kind: 'password',
      username: 'decant',
      password: token,
      hint: 'Check the API key, in DECANT_API_KEY for the command line.',
    };
  };
}
