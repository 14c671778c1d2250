import { DecantError } from '@decant/core';
import { createDecant, createNodeFetch, decantPaths, type Decant } from '@decant/sdk';

/** The SDK; disposing of it closes what it talks to. */
export interface Wired extends AsyncDisposable {
  readonly decant: Decant;
}

/** Most bytes of chunks kept on this machine when they come from a server. */
const CACHE_BYTES = 4 * 1024 ** 3;

/**
 * The one place that decides whom the SDK talks to: the server that `DECANT_URL` names, or with none the
 * embedded server's own handler, in this process, on `DECANT_HOME`.
 * @throws CONFIG_INVALID when the address is no URL or the data directory cannot be used.
 */
export async function wire(env: Readonly<Record<string, string | undefined>> = process.env): Promise<Wired> {
  const paths = decantPaths(env);
  const url = env['DECANT_URL'] ?? '';
  if (url !== '') {
    const baseUrl = serverUrl(url);
    const http = createNodeFetch();
    const token = env['DECANT_API_KEY'] ?? '';
    return {
      decant: createDecant({
        fetch: http.fetch,
        baseUrl,
        ...(token === '' ? {} : { token }),
        paths,
        cacheBytes: CACHE_BYTES,
      }),
      [Symbol.asyncDispose]: () => http.close(),
    };
  }
  const { openEmbeddedServer } = await import('@decant/server');
  const server = await openEmbeddedServer({ dataDirectory: paths.home });
  return {
    decant: createDecant({ fetch: server.fetch, baseUrl: server.baseUrl, paths }),
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
