import { basename } from 'node:path';

import { DecantError, quote, slug } from '@decant/core';
import { parseReference } from '@decant/oci';

/** A source that is a root filesystem without a configuration. */
export interface RootSource {
  readonly kind: 'raw' | 'dir' | 'tar' | 'overlay2';
  readonly path: string;
}

/** An image of an engine of this machine. */
export interface EngineSource {
  readonly kind: 'docker' | 'podman' | 'buildah';
  readonly reference: string;
}

/** An archive of images; what follows the file may name one of several. */
export interface ArchiveSource {
  readonly kind: 'docker-archive' | 'oci-archive';
  /** `FILE[:TAG]`; which colon ends the file only the disk can tell. */
  readonly path: string;
}

/** A source of `image import`, taken apart. */
export type ImageSource =
  | { readonly kind: 'oci'; readonly path: string; readonly tag: string | undefined }
  | { readonly kind: 'registry'; readonly reference: string }
  | ArchiveSource
  | EngineSource
  | RootSource;

/** A source that holds an image with layers and a configuration. */
export type LayeredSource = Exclude<ImageSource, RootSource>;

const HINT =
  'Write registry:REF, docker:REF, podman:REF, buildah:REF, oci:DIR[:TAG], oci-archive:FILE[:TAG], ' +
  'docker-archive:FILE[:NAME], tar:FILE, dir:PATH, overlay2:PATH or raw:FILE.';

/** @throws USAGE for anything else; NAME_INVALID for a reference that is none. */
export function parseSource(text: string): ImageSource {
  const [, kind, rest = ''] = /^([a-z0-9-]+):(.*)$/s.exec(text) ?? [];
  if (rest !== '') {
    switch (kind) {
      case 'docker-archive':
      case 'oci-archive':
      case 'raw':
      case 'dir':
      case 'tar':
      case 'overlay2':
        return { kind, path: rest };
      case 'oci': {
        // As skopeo and umoci have it: what follows the last colon is the tag, unless a path goes on after it.
        const [, path, tag] = /^(.+):([A-Za-z0-9_][A-Za-z0-9._-]{0,127})$/s.exec(rest) ?? [];
        return path === undefined ? { kind, path: rest, tag: undefined } : { kind, path, tag };
      }
      case 'registry':
      case 'docker':
      case 'podman':
      case 'buildah':
        // An engine also knows images by id, which has the form of a name.
        parseReference(rest);
        return { kind, reference: rest };
    }
  }
  throw new DecantError('USAGE', `Not an image source: ${quote(text)}.`, { hint: HINT });
}

const ROOT_KINDS: readonly string[] = ['raw', 'dir', 'tar', 'overlay2'] satisfies RootSource['kind'][];

export function isLayered(source: ImageSource): source is LayeredSource {
  return !ROOT_KINDS.includes(source.kind);
}

/** The name of a file or directory, without its endings, as an image name. */
export function nameOfPath(path: string): string {
  const name = basename(path).replace(/\.(?:tar(?:\.(?:gz|zst))?|tgz|raw|img|ext4|erofs|oci)$/i, '');
  return slug(name) || 'image';
}
