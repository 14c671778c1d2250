import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

import { DecantError, parseNamespace, type Namespace } from '@decant/core';

import type { KeyRow, MetadataStore } from './metadata/store.ts';

/** Who is calling. An operator is whoever holds the data directory: the embedded server's own caller. */
export interface Principal {
  readonly namespace: Namespace;
  readonly operator: boolean;
  /** Id of the API key that was shown; null for an operator. */
  readonly keyId: string | null;
}

export const DEFAULT_NAMESPACE = parseNamespace('default');

export const OPERATOR: Principal = { namespace: DEFAULT_NAMESPACE, operator: true, keyId: null };

/** `dk_<12 hex id>_<43 base64url characters>`; only a SHA-256 of the secret, 256 random bits, is stored. */
const KEY_FORM = /^dk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})$/;

export async function createApiKey(
  metadata: MetadataStore,
  namespace: Namespace,
): Promise<{ readonly row: KeyRow; readonly key: string }> {
  const id = randomBytes(6).toString('hex');
  const secret = randomBytes(32).toString('base64url');
  const row = await metadata.keys.create(id, namespace, hashOf(secret));
  return { row, key: `dk_${id}_${secret}` };
}

/** @throws UNAUTHORIZED without a header, or with a key that is malformed, unknown or revoked. */
export async function authenticate(metadata: MetadataStore, authorization: string | undefined): Promise<Principal> {
  const token = /^Bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
  if (token === undefined) {
    throw new DecantError('UNAUTHORIZED', 'This call needs an API key.', {
      hint: 'Send "Authorization: Bearer KEY"; decant reads the key from DECANT_API_KEY.',
    });
  }
  const principal = await principalOfKey(metadata, token);
  if (principal === undefined) {
    throw new DecantError('UNAUTHORIZED', 'The API key is not valid.', {
      hint: 'Create one with: decant key create',
    });
  }
  return principal;
}

/** Whose key this is; undefined when it is malformed, unknown or revoked. */
export async function principalOfKey(metadata: MetadataStore, key: string): Promise<Principal | undefined> {
  const [, id, secret] = KEY_FORM.exec(key) ?? [];
  const row = id === undefined ? undefined : await metadata.keys.find(id);
  if (row === undefined || row.revokedAt !== null || !hasHash(secret ?? '', row.secretHash)) return undefined;
  return { namespace: row.namespace, operator: false, keyId: row.id };
}

/** Whether a secret has this hash, in constant time. */
export function hasHash(secret: string, hash: string): boolean {
  return timingSafeEqual(Buffer.from(hash, 'hex'), Buffer.from(hashOf(secret), 'hex'));
}

/** SHA-256 in hexadecimal: for secrets of 256 random bits, which need no slow hash. */
export function hashOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}
