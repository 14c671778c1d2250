import { DecantError, quote } from '@decant/core';

import { digestHex } from './digest.ts';

/** The full name of an image in a registry. */
export interface ImageReference {
  /** Host with its port when it has one; `docker.io` when the name has none. */
  readonly registry: string;
  /** Path of the repository, `library/…` included. */
  readonly repository: string;
  /** `latest` when neither tag nor digest was given. */
  readonly tag: string | undefined;
  /** `sha256:…`; it decides when there is a tag as well. */
  readonly digest: string | undefined;
}

export const DOCKER_HUB = 'docker.io';

/** Longest reference: 255 of name, 128 of tag, 72 of digest and what joins them. */
const MAX_LENGTH = 512;
const COMPONENT = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const HOST =
  /^(?:\[[0-9a-fA-F:]{2,39}\]|[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*)(?::\d{1,5})?$/;

/**
 * Reads a reference as docker does: the part before the first slash is a registry when it has a dot or a colon
 * or is `localhost`; names without one are of Docker Hub, where names of one part lie in `library/`. The grammar
 * is that of the OCI distribution specification 1.1 and of docker's references.
 * @throws NAME_INVALID, OCI_UNSUPPORTED for a digest other than sha256, OCI_INVALID for a malformed one.
 */
export function parseReference(text: string): ImageReference {
  if (text.length > MAX_LENGTH) throw invalid(text, `has more than ${MAX_LENGTH} characters`);
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined) digestHex(digest);
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.lastIndexOf(':');
  const hasTag = colon > named.lastIndexOf('/') && !/^\[[^/]*$/.test(named);
  const name = hasTag ? named.slice(0, colon) : named;
  const tag = hasTag ? named.slice(colon + 1) : undefined;
  if (tag !== undefined && !isTag(tag)) throw invalid(text, `has the tag ${quote(tag)}`);
  const { registry, path } = splitRegistry(name);
  if (registry !== DOCKER_HUB && !isHost(registry)) throw invalid(text, `has the registry ${quote(registry)}`);
  const repository = registry === DOCKER_HUB && path !== '' && !path.includes('/') ? `library/${path}` : path;
  if (!isRepositoryName(repository)) {
    const hint = /[A-Z]/.test(path) ? 'Names of repositories are in lower case.' : undefined;
    throw invalid(text, `has the repository ${quote(path)}`, hint);
  }
  return { registry, repository, tag: tag ?? (digest === undefined ? 'latest' : undefined), digest };
}

function splitRegistry(name: string): { readonly registry: string; readonly path: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  // A host name in upper case cannot be a part of a repository, so it is one.
  if (!/[.:]/.test(first) && first !== 'localhost' && first === first.toLowerCase()) {
    return { registry: DOCKER_HUB, path: name };
  }
  const registry = first === 'index.docker.io' ? DOCKER_HUB : first;
  return { registry, path: name.slice(slash + 1) };
}

/** `HOST[:PORT]`. */
export function isHost(text: string): boolean {
  return HOST.test(text) && text.length <= 255 && URL.canParse(`https://${text}`);
}

/** Whether this is a path of a repository: 255 characters at most, components in lower case. */
export function isRepositoryName(text: string): boolean {
  return text.length > 0 && text.length <= 255 && text.split('/').every((part) => COMPONENT.test(part));
}

export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** The reference in full: registry, repository, and tag and digest as far as it has them. */
export function formatReference({ registry, repository, tag, digest }: ImageReference): string {
  return `${registry}/${repository}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
}

function invalid(text: string, why: string, hint?: string): DecantError {
  return new DecantError('NAME_INVALID', `Not an image reference: ${quote(text)} ${why}.`, {
    hint: hint ?? 'Write [HOST[:PORT]/]NAME[:TAG][@sha256:…].',
  });
}
