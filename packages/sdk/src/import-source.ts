import { basename } from 'node:path';

import { DecantError, quote } from '@decant/core';

/** Where an image is imported from. */
export type ImportSource =
  | { readonly kind: 'oci'; readonly path: string; readonly tag: string | undefined }
  | { readonly kind: 'docker-archive' | 'raw'; readonly path: string };

/** Reads `oci:DIR[:TAG]`, `docker-archive:FILE` or `raw:FILE`. @throws USAGE for anything else. */
export function parseSource(text: string): ImportSource {
  const [, kind, rest = ''] = /^([a-z-]+):(.*)$/s.exec(text) ?? [];
  if (rest !== '') {
    if (kind === 'docker-archive' || kind === 'raw') return { kind, path: rest };
    if (kind === 'oci') {
      // As skopeo and umoci have it: what follows the last colon is the tag, unless a path goes on after it.
      const [, path, tag] = /^(.+):([A-Za-z0-9_][A-Za-z0-9._-]{0,127})$/s.exec(rest) ?? [];
      return path === undefined ? { kind, path: rest, tag: undefined } : { kind, path, tag };
    }
  }
  throw new DecantError('USAGE', `Not an image source: ${quote(text)}.`, {
    hint: 'Write oci:DIR[:TAG], docker-archive:FILE or raw:FILE.',
  });
}

/** The name of a file or directory, without its endings, as an image name. */
export function nameOfPath(path: string): string {
  const slug = basename(path)
    .toLowerCase()
    .replace(/\.(tar|raw|img|ext4|erofs|oci)$/, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  return slug === '' ? 'image' : slug;
}
