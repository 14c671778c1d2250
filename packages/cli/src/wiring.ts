import { DecantError, type Fetch } from '@decant/core';
import { createDecant, createNodeFetch, decantPaths, type Decant, type DecantPaths } from '@decant/sdk';

/** The SDK, and what must be closed when the command ends. */
export interface Wired extends AsyncDisposable {
  readonly decant: Decant;
  readonly paths: DecantPaths;
}

/** Most bytes of chunks kept on this machine when they come from a server. */
const CACHE_BYTES = 4 * 1024 ** 3;

/**
 * The one place that decides whom the SDK talks to: the server that `DECANT_URL` names, or with none the
 * embedded server's own handler, in this process, on `DECANT_HOME`.
 */
export async function wire(env: Readonly<Record<string, string | undefined>> = process.env): Promise<Wired> {
  const paths = decantPaths(env);
  const url = env['DECANT_URL'];
  if (url !== undefined && url !== '') {
    const http = createNodeFetch();
    return {
      paths,
      decant: createDecant({
        fetch: http.fetch,
        baseUrl: serverUrl(url),
        token: env['DECANT_API_KEY'],
        paths,
        cacheBytes: CACHE_BYTES,
      }),
      [Symbol.asyncDispose]: () => http.close(),
    };
  }
  const { openEmbeddedServer } = await import('@decant/server');
  const server = await openEmbeddedServer({ dataDirectory: paths.home });
  const fetch: Fetch = server.fetch;
  return {
    paths,
    decant: createDecant({ fetch, baseUrl: server.baseUrl, paths }),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

function serverUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
    throw new DecantError('CONFIG_INVALID', 'DECANT_URL is not an http or https URL.', {
      hint: 'Write it like https://decant.example:8443, or unset it to work on this machine.',
    });
  }
  return text;
}
