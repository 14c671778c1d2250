import { DecantError, Scope } from '@decant/core';
import { createDecant, createNodeFetch, decantPaths, loadLogin, type Decant, type DecantPaths } from '@decant/sdk';

type Environment = Readonly<Record<string, string | undefined>>;

/** The SDK; disposing of it closes what it talks to. */
export interface Wired extends AsyncDisposable {
  readonly decant: Decant;
}

/** Most bytes of chunks kept on this machine when they come from a server. */
const CACHE_BYTES = 4 * 1024 ** 3;

/**
 * The one place that decides whom the SDK talks to: the server that `DECANT_URL` names, else the one of `decant login`,
 * or with none the embedded server's own handler, in this process, on `DECANT_HOME`. `DECANT_BUILDER_URL` names an
 * image-builder beside it.
 * @throws CONFIG_INVALID when an address is no URL or the data directory cannot be used.
 */
export async function wire(env: Environment = process.env): Promise<Wired> {
  const paths = decantPaths(env);
  const server = await serverOf(env, paths);
  const builderUrl = env['DECANT_BUILDER_URL'] ?? '';
  await using scope = new Scope();
  const builder =
    builderUrl === ''
      ? undefined
      : { ...builderOf(env, builderUrl, server?.token), fetch: scope.use(createNodeFetch()).fetch };
  if (server === undefined) {
    const { openEmbeddedServer } = await import('@decant/server');
    const { fetch, baseUrl } = scope.use(await openEmbeddedServer({ dataDirectory: paths.home }));
    return wired(createDecant({ fetch, baseUrl, embedded: true, builder, paths }), scope);
  }
  const { fetch } = scope.use(createNodeFetch());
  return wired(createDecant({ fetch, ...server, builder, paths, cacheBytes: CACHE_BYTES }), scope);
}

function wired(decant: Decant, scope: Scope): Wired {
  const resources = scope.move();
  return { decant, [Symbol.asyncDispose]: () => resources[Symbol.asyncDispose]() };
}

function builderOf(env: Environment, url: string, serverToken: string | undefined) {
  const given = env['DECANT_API_KEY'] ?? '';
  const token = given === '' ? serverToken : given;
  return { baseUrl: serverUrl('DECANT_BUILDER_URL', url), ...(token === undefined ? {} : { token }) };
}

/** The server that is named, and the key for it. The stored key goes to the server it was stored for, and no other. */
async function serverOf(
  env: Environment,
  paths: DecantPaths,
): Promise<{ readonly baseUrl: string; readonly token?: string } | undefined> {
  const named = env['DECANT_URL'];
  // Set to nothing, it says: on this machine, whatever was stored.
  if (named === '') return undefined;
  const login = await loadLogin(paths);
  const baseUrl = named === undefined ? login?.url : serverUrl('DECANT_URL', named);
  if (baseUrl === undefined) return undefined;
  const given = env['DECANT_API_KEY'] ?? '';
  const token = given === '' && login !== undefined && isSameServer(login.url, baseUrl) ? login.key : given;
  return { baseUrl, ...(token === '' ? {} : { token }) };
}

/** Whether two addresses are of one server, however each is written. */
function isSameServer(one: string, other: string): boolean {
  const written = (text: string) => (URL.canParse(text) ? new URL(text).href.replace(/\/+$/, '') : text);
  return written(one) === written(other);
}

/** @throws CONFIG_INVALID */
export function serverUrl(name: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
    throw new DecantError('CONFIG_INVALID', `${name} is not an http or https URL.`, {
      hint: 'Write it like https://decant.example:8443, or unset it to work on this machine.',
    });
  }
  return text;
}
