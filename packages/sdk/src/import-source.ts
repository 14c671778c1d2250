import { basename } from 'node:path';

import { DecantError, quote } from '@decant/core';
import { parseReference } from '@decant/oci';

/** A source that is a root filesystem without layers. */
export interface RootSource {
  readonly kind: 'raw' | 'dir' | 'tar';
  readonly path: string;
}

/** A source of `image import`, taken apart. */
export type ImageSource =
  | { readonly kind: 'oci'; readonly path: string; readonly tag: string | undefined }
  | { readonly kind: 'docker-archive'; readonly path: string }
  | RootSource
  | { readonly kind: 'registry' | 'docker'; readonly reference: string };

/** A source that holds an image with layers and a configuration. */
export type LayeredSource = Exclude<ImageSource, RootSource>;

const HINT = 'Write registry:REF, docker:REF, oci:DIR[:TAG], docker-archive:FILE, tar:FILE, dir:PATH or raw:FILE.';

/** @throws USAGE for anything else; NAME_INVALID for a reference that is none. */
export function parseSource(text: string): ImageSource {
  const [, kind, rest = ''] = /^([a-z-]+):(.*)$/s.exec(text) ?? [];
  if (rest !== '') {
    if (kind === 'docker-archive') return { kind, path: rest };
    if (kind === 'raw' || kind === 'dir' || kind === 'tar') return { kind, path: rest };
    if (kind === 'oci') {
      // As skopeo and umoci have it: what follows the last colon is the tag, unless a path goes on after it.
      const [, path, tag] = /^(.+):([A-Za-z0-9_][A-Za-z0-9._-]{0,127})$/s.exec(rest) ?? [];
      return path === undefined ? { kind, path: rest, tag: undefined } : { kind, path, tag };
    }
    if (kind === 'registry' || kind === 'docker') {
      // An engine also knows images by id, which has the form of a name.
      parseReference(rest);
      return { kind, reference: rest };
    }
  }
  throw new DecantError('USAGE', `Not an image source: ${quote(text)}.`, { hint: HINT });
}

export function isLayered(source: ImageSource): source is LayeredSource {
  return source.kind !== 'raw' && source.kind !== 'dir' && source.kind !== 'tar';
}

/** The name of a file or directory, without its endings, as an image name. */
export function nameOfPath(path: string): string {
  const slug = basename(path)
    .toLowerCase()
    .replace(/\.(?:tar(?:\.(?:gz|zst))?|tgz|raw|img|ext4|erofs|oci)$/, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  return slug === '' ? 'image' : slug;
}
