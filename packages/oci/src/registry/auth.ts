import { DecantError, type Fetch } from '@decant/core';
import { readBody, send } from '@decant/transport';
import { z } from 'zod';

import type { CredentialLookup, RegistryCredentials } from '../docker-config.ts';
import type { Challenge } from './challenge.ts';
import { allowedTarget } from './origin.ts';

export interface RegistryAuthOptions {
  readonly origin: URL;
  /** The name that credentials are kept under. */
  readonly registry: string;
  readonly fetch: Fetch;
  readonly credentials: CredentialLookup | undefined;
}

const tokenSchema = z.looseObject({
  token: z.string().optional(),
  access_token: z.string().optional(),
  expires_in: z.number().positive().optional(),
});

const MAX_TOKEN_BYTES = 256 * 1024;
/** How long a token lasts when its issuer does not say (Docker's token specification), in seconds. */
const DEFAULT_LIFE_S = 60;

/** Meets the challenges of one registry and remembers what it got, in memory. */
export class RegistryAuth {
  readonly #options: RegistryAuthOptions;
  readonly #tokens = new Map<string, { readonly header: string; readonly until: number }>();
  #basic: string | undefined;
  #found: Promise<RegistryCredentials | undefined> | undefined;

  constructor(options: RegistryAuthOptions) {
    this.#options = options;
  }

  /** The credentials that the answers so far were made with. */
  used: RegistryCredentials | undefined;

  /** The header to send without having been asked; undefined when nothing is known yet. */
  current(scope: string): string | undefined {
    const token = this.#tokens.get(scope);
    if (token !== undefined && token.until > performance.now()) return token.header;
    return this.#basic;
  }

  /** The header that meets a challenge; undefined when there are no credentials for it. */
  async answer(challenge: Challenge, scope: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    const credentials = await this.#credentials(signal);
    this.used = credentials;
    if (challenge.scheme === 'basic') {
      if (credentials?.kind !== 'password') return undefined;
      this.#basic = basicHeader(credentials);
      return this.#basic;
    }
    this.#tokens.delete(scope);
    const { token, lifeSeconds } = await this.#fetchToken(challenge, scope, credentials, signal);
    const header = `Bearer ${token}`;
    // A tenth less, for the time it takes to get there.
    this.#tokens.set(scope, { header, until: performance.now() + lifeSeconds * 900 });
    return header;
  }

  async #credentials(signal: AbortSignal | undefined): Promise<RegistryCredentials | undefined> {
    const { credentials, registry } = this.#options;
    if (credentials === undefined) return undefined;
    this.#found ??= credentials(registry, { signal });
    try {
      return await this.#found;
    } catch (error) {
      this.#found = undefined;
      throw error;
    }
  }

  /** Docker's token protocol: GET with basic authentication, or OAuth 2's POST with a refresh token. */
  async #fetchToken(
    challenge: Extract<Challenge, { scheme: 'bearer' }>,
    scope: string,
    credentials: RegistryCredentials | undefined,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly token: string; readonly lifeSeconds: number }> {
    const { origin, registry, fetch } = this.#options;
    // The credentials are this registry's to use, so it may name who checks them; but never over plain http.
    const realm = allowedTarget(challenge.realm, origin, 'a token');
    const scopes = scope.split(' ');
    let response: Response;
    if (credentials?.kind === 'refresh-token') {
      const form = new URLSearchParams({ grant_type: 'refresh_token', client_id: 'decant', scope });
      form.set('refresh_token', credentials.refreshToken);
      if (challenge.service !== undefined) form.set('service', challenge.service);
      const headers = { 'content-type': 'application/x-www-form-urlencoded' };
      response = await send(fetch, realm.href, { method: 'POST', headers, body: form.toString() }, { signal });
    } else {
      if (challenge.service !== undefined) realm.searchParams.set('service', challenge.service);
      for (const each of scopes) realm.searchParams.append('scope', each);
      const headers: Record<string, string> =
        credentials === undefined ? {} : { authorization: basicHeader(credentials) };
      response = await send(fetch, realm.href, { method: 'GET', headers }, { signal });
    }
    const body = await readBody(response, MAX_TOKEN_BYTES, { signal });
    if (response.status === 401 || response.status === 403 || response.status === 400) {
      throw unauthorized(registry, credentials);
    }
    if (!response.ok) {
      throw new DecantError(
        'HTTP_STATUS',
        `${realm.host} answered ${response.status} when asked for a token for ${registry}.`,
        {
          details: { status: response.status, host: realm.host },
          retryable: response.status >= 500 || response.status === 429,
        },
      );
    }
    const parsed = tokenSchema.safeParse(parseJson(body));
    const token = parsed.data?.token ?? parsed.data?.access_token ?? '';
    if (!/^[\x21-\x7e]{1,100000}$/.test(token)) {
      throw new DecantError('HTTP_BODY_INVALID', `${realm.host} gave no token for ${registry}.`, {
        details: { host: realm.host },
      });
    }
    return { token, lifeSeconds: Math.min(parsed.data?.expires_in ?? DEFAULT_LIFE_S, 86_400) };
  }
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

function basicHeader(credentials: Extract<RegistryCredentials, { kind: 'password' }>): string {
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`, 'utf8').toString('base64')}`;
}

export function unauthorized(registry: string, credentials: RegistryCredentials | undefined): DecantError {
  return new DecantError(
    'UNAUTHORIZED',
    credentials !== undefined
      ? `${registry} does not accept the credentials for it.`
      : `${registry} wants credentials and there are none for it.`,
    { hint: credentials?.hint ?? `Run docker login ${registry}.`, details: { registry } },
  );
}
