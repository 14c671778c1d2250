import { randomBytes } from 'node:crypto';

import { DecantError, type RegistryLogin } from '@decant/core';
import { Hono } from 'hono';

import { hasHash, hashOf, principalOfKey, type Principal } from '../auth.ts';
import { registryHostOf, type ServerEnv } from '../http.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { EMBEDDED_HOST } from '../services.ts';

/** How long credentials last: longer than any push should take, in milliseconds. */
const LIFE_MS = 12 * 60 * 60 * 1000;

/** The user name given out; any other one is taken as well, since the password says all. */
const USERNAME = 'decant';

/** `drc_<12 hex id>_<43 base64url characters>`; only a SHA-256 of the secret, 256 random bits, is stored. */
const CREDENTIAL_FORM = /^drc_([0-9a-f]{12})_([A-Za-z0-9_-]{43})$/;

/** Credentials for `docker login`, for whoever has an API key: they open the registry and nothing else. */
export function credentialRoutes(): Hono<ServerEnv> {
  const routes = new Hono<ServerEnv>();

  routes.post('/default/credentials', async (c) => {
    const { principal, services } = c.var;
    const host = registryHostOf(c);
    if (host === EMBEDDED_HOST) {
      throw new DecantError('USAGE', 'The registry has no address: this server does not listen on a port.', {
        hint: 'Start one with: decant serve',
      });
    }
    const id = randomBytes(6).toString('hex');
    const secret = randomBytes(32).toString('base64url');
    const { namespace, keyId } = principal;
    const { expiresAt } = await services.metadata.keys.createRegistryCredential({
      ...{ id, namespace, keyId, secretHash: hashOf(secret), lifeMs: LIFE_MS },
    });
    const answer: RegistryLogin = {
      username: USERNAME,
      password: `drc_${id}_${secret}`,
      registry_url: `${host}/${namespace}`,
      expired_at: new Date(expiresAt).toISOString(),
    };
    return c.json(answer, 201);
  });

  return routes;
}

/**
 * Who shows this header to the registry: an API key or the password of credentials, as the password of basic
 * authentication under any user name, or as a bearer token. Undefined when it proves nothing.
 */
export async function authenticateRegistry(
  metadata: MetadataStore,
  authorization: string | null,
): Promise<Principal | undefined> {
  const [, scheme = '', value = ''] = /^(basic|bearer) +(\S{1,4096})$/i.exec(authorization ?? '') ?? [];
  const text = scheme.toLowerCase() === 'basic' ? Buffer.from(value, 'base64').toString('utf8') : `:${value}`;
  const password = text.slice(text.indexOf(':') + 1);
  const [, id, secret] = CREDENTIAL_FORM.exec(password) ?? [];
  if (id === undefined || secret === undefined) return principalOfKey(metadata, password);
  const row = await metadata.keys.findRegistryCredential(id);
  if (row === undefined || !hasHash(secret, row.secretHash)) return undefined;
  return { namespace: row.namespace, operator: false, keyId: null };
}
