import { prepareResponseSchema, type PrepareResponse, type RootfsFormat } from '@decant/core';
import type { HttpClient } from '@decant/transport';

export interface PrepareFacts {
  /** `NAME[:TAG]` the image gets when it is admitted. */
  readonly name: string;
  readonly format: RootfsFormat;
  /** Text of the Dockerfile and its final base, for the record; empty for an import. */
  readonly dockerfile?: string | undefined;
  readonly baseImage?: string | undefined;
}

/** Opens a build at the server: where to stage, and under which id. */
export function prepareBuild(client: HttpClient, facts: PrepareFacts, signal?: AbortSignal): Promise<PrepareResponse> {
  return client.json(prepareResponseSchema, 'POST', '/platform/v1/sandbox-template-builds', {
    body: {
      name: facts.name,
      dockerfile: facts.dockerfile ?? '',
      baseImage: facts.baseImage ?? '',
      public: false,
      rootfsNodeKind: 'base',
      rootfsFormat: facts.format,
    },
    signal,
  });
}
