import { createRemoteBuilder, type RemoteBuilder } from '@decant/builder-remote';
import type { HashProvider, ThreadedCodec } from '@decant/cas';
import { createZstdCodec, loadNodeHashProvider } from '@decant/cas/node';
import { DecantError, type Fetch, type OnEvent } from '@decant/core';
import { createHttpClient, type HttpClient } from '@decant/transport';

import { builderUrlOf } from './build-place.ts';
import type { DecantPaths } from './paths.ts';

export interface DecantOptions {
  /** The web's fetch, or an embedded server's handler. Signed URLs are resolved through it too. */
  readonly fetch: Fetch;
  /** Where the server answers, for example `https://decant.example`. */
  readonly baseUrl: string;
  /** API key; an embedded server needs none. */
  readonly token?: string | undefined;
  /** Another image-builder than the one beside the API (`builder.` in place of `api.` in its host, else the same). */
  readonly builder?:
    | { readonly baseUrl: string; readonly fetch: Fetch; readonly token?: string | undefined }
    | undefined;
  /** Whether `fetch` leads to a server in this process, so that nothing travels. Default false. */
  readonly embedded?: boolean | undefined;
  /** Where this client keeps scratch files and its chunk cache. */
  readonly paths: DecantPaths;
  /** Most bytes of verified chunks to keep on this machine; default 0: none. Of no use with an embedded server. */
  readonly cacheBytes?: number | undefined;
}

/** Options of every call that takes a while. */
export interface WorkOptions {
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What every operation of the SDK works with. */
export interface Session {
  readonly options: DecantOptions;
  readonly client: HttpClient;
  readonly fetch: Fetch;
  /** The image-builder, and where it answers. */
  readonly builder: () => RemoteBuilder;
  readonly builderAt: { readonly baseUrl: string; readonly fetch: Fetch; readonly token?: string | undefined };
  readonly paths: DecantPaths;
  /** Loaded on first use: most commands hash nothing. */
  readonly hash: () => Promise<HashProvider>;
  readonly codec: ThreadedCodec;
}

/** @throws CONFIG_INVALID for a base URL or a key that cannot be one. */
export function createSession(options: DecantOptions): Session {
  if (options.token !== undefined && !/^[\x21-\x7e]+$/.test(options.token)) {
    throw new DecantError('CONFIG_INVALID', 'The API key has characters that no key has.', {
      hint: 'Copy it again, without spaces or line ends around it.',
    });
  }
  let hash: Promise<HashProvider> | undefined;
  let builder: RemoteBuilder | undefined;
  const { fetch, token } = options;
  const client = createHttpClient({ baseUrl: options.baseUrl, fetch, token });
  const builderAt = options.builder ?? { baseUrl: builderUrlOf(client.baseUrl), fetch, token };
  return {
    options,
    builder: () => (builder ??= createRemoteBuilder(builderAt)),
    builderAt,
    client,
    fetch,
    paths: options.paths,
    hash: () => (hash ??= loadNodeHashProvider()),
    codec: createZstdCodec(),
  };
}
