import { DecantError, quote } from '@decant/core';
import {
  dockerCredentials,
  openDockerArchive,
  openOciLayout,
  openRegistryImage,
  parseReference,
  type OciImage,
  type Platform,
} from '@decant/oci';
import { createNodeFetch } from '@decant/transport/node';

import { saveFromEngine } from './image-transfer-engine.ts';
import type { WorkOptions } from './session.ts';

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
    if (kind === 'registry') {
      parseReference(rest);
      return { kind, reference: rest };
    }
    if (kind === 'docker') return { kind, reference: rest };
  }
  throw new DecantError('USAGE', `Not an image source: ${quote(text)}.`, { hint: HINT });
}

export function isLayered(source: ImageSource): source is LayeredSource {
  return source.kind !== 'raw' && source.kind !== 'dir' && source.kind !== 'tar';
}

export interface OpenSourceOptions extends WorkOptions {
  /** Private directory for what is downloaded or saved; it must live as long as the image. */
  readonly scratchDirectory: string;
  /** Default: the only one, or Linux on this machine's processor. */
  readonly platform?: Platform | undefined;
}

/** Opens the image of a source. @throws the errors of `@decant/oci`; NOT_FOUND when no engine has it. */
export async function openSource(source: LayeredSource, options: OpenSourceOptions): Promise<OciImage> {
  const { scratchDirectory, platform, onEvent, signal } = options;
  switch (source.kind) {
    case 'oci':
      return openOciLayout(source.path, { tag: source.tag, platform, signal });
    case 'docker-archive':
      return openDockerArchive(source.path, { platform, signal });
    case 'docker':
      return openDockerArchive(await saveFromEngine(source.reference, options), { platform, signal });
    case 'registry': {
      const http = createNodeFetch();
      const { fetch } = http;
      try {
        const image = await openRegistryImage(parseReference(source.reference), {
          ...{ fetch, credentials: dockerCredentials(), scratchDirectory, platform, onEvent, signal },
        });
        return {
          ...image,
          async [Symbol.asyncDispose]() {
            await image[Symbol.asyncDispose]();
            await http.close();
          },
        };
      } catch (error) {
        await http.close();
        throw error;
      }
    }
  }
}
