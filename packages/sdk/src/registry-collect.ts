import { collectRegistryResponseSchema, type CollectedRegistry } from '@decant/core';

import type { Session, WorkOptions } from './session.ts';

export interface CollectRegistryRequest {
  /** How long nothing must have needed a blob before it goes; default: what the server was told, else a day. */
  readonly graceSeconds?: number | undefined;
}

export function collectRegistry(
  session: Session,
  { graceSeconds }: CollectRegistryRequest,
  { signal }: Pick<WorkOptions, 'signal'>,
): Promise<CollectedRegistry> {
  return session.client.json(collectRegistryResponseSchema, 'POST', '/v1/registry/collect', {
    body: graceSeconds === undefined ? {} : { graceSeconds },
    signal,
  });
}
