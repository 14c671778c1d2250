import { apiKeySchema, createdKeySchema, keyListSchema, type ApiKey } from '@decant/core';

import type { Session } from './session.ts';

export function createKey(session: Session, namespace?: string): Promise<ApiKey & { readonly key: string }> {
  return session.client.json(createdKeySchema, 'POST', '/v1/keys', {
    body: namespace === undefined ? {} : { namespace },
  });
}

export async function listKeys(session: Session): Promise<ApiKey[]> {
  return (await session.client.json(keyListSchema, 'GET', '/v1/keys')).keys;
}

export function revokeKey(session: Session, id: string): Promise<ApiKey> {
  return session.client.json(apiKeySchema, 'DELETE', `/v1/keys/${encodeURIComponent(id)}`);
}
