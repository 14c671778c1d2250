import { stat } from 'node:fs/promises';
import { basename } from 'node:path';

import { openFileRandomAccess } from '@decant/cas/node';
import {
  DecantError,
  errnoOf,
  formatImageName,
  MIB,
  parseImageName,
  quote,
  type ImageConfig,
  type RootfsFormat,
} from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import { openDockerArchive, openOciLayout, type OciImage } from '@decant/oci';
import { publishArchive, publishStreaming, type PublishResult } from '@decant/publish';
import { detectFilesystem } from '@decant/rootfs';
import type { ImagePiece, RandomAccess } from '@decant/cas';

import { imageResult, makeImage } from './image-make.ts';
import type { ImageResult } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

export interface ImportImageRequest {
  /** `oci:DIR[:TAG]`, `docker-archive:FILE` or `raw:FILE`. */
  readonly source: string;
  /** `NAME[:TAG]`; default: from the source. */
  readonly name?: string | undefined;
  readonly format: RootfsFormat;
  readonly diskBytes?: number | undefined;
}

/** Makes an admitted, named image of one that exists as files. @throws OCI_…, LAYER_INVALID, USAGE, INGEST_… */
export async function importImage(
  session: Session,
  request: ImportImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<ImageResult> {
  const started = performance.now();
  const source = parseSource(request.source);
  const facts = { format: request.format, diskBytes: request.diskBytes ?? 0 };
  if (request.name !== undefined) parseImageName(request.name);
  await using scratch = await openScratchDirectory(session.paths.scratch);
  const options = { scratchDirectory: scratch.path, onEvent, signal };
  const made =
    source.kind === 'raw'
      ? await importRaw(session, source.path, { ...facts, name: request.name ?? defaultName(source.path) }, options)
      : await importOci(session, source, { ...facts, name: request.name }, options);
  const total = Math.round(performance.now() - started);
  return imageResult(session, made.published, { build: 0, layout: made.layoutMs, total }, signal);
}

type Source =
  | { readonly kind: 'oci'; readonly path: string; readonly tag: string | undefined }
  | { readonly kind: 'docker-archive' | 'raw'; readonly path: string };

function parseSource(text: string): Source {
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

interface ImportFacts {
  readonly format: RootfsFormat;
  readonly diskBytes: number;
}

interface ImportOptions extends WorkOptions {
  readonly scratchDirectory: string;
}

async function importOci(
  session: Session,
  source: Exclude<Source, { kind: 'raw' }>,
  facts: ImportFacts & { readonly name: string | undefined },
  options: ImportOptions,
) {
  const { signal } = options;
  await using image: OciImage =
    source.kind === 'oci'
      ? await openOciLayout(source.path, { ...(source.tag === undefined ? {} : { tag: source.tag }), signal })
      : await openDockerArchive(source.path, { signal });
  // Awaited here: the archive stays open until it has been read.
  return await makeImage(session, image, { ...facts, name: facts.name ?? nameOfImage(image, source) }, options);
}

/**
 * The last segment of the image's own name, with its tag; else the name of the file. In a layout a name is often
 * a tag alone, and then the directory names the image.
 */
function nameOfImage(image: OciImage, { kind, path }: Exclude<Source, { kind: 'raw' }>): string {
  for (const reference of [image.reference ?? '', ...image.tags]) {
    const last = reference.split('@')[0]?.split('/').at(-1) ?? '';
    const isTag = kind === 'oci' && last === reference && !last.includes(':');
    try {
      return formatImageName(parseImageName(isTag ? `${defaultName(path)}:${last}` : last));
    } catch {
      continue;
    }
  }
  return defaultName(path);
}

async function importRaw(
  session: Session,
  path: string,
  facts: ImportFacts & { readonly name: string },
  options: ImportOptions,
): Promise<{ published: PublishResult; layoutMs: number }> {
  const { signal } = options;
  const { size, isFile } = await stat(path).then(
    (info) => ({ size: info.size, isFile: info.isFile() }),
    (error: unknown) => {
      throw new DecantError(
        'OCI_SOURCE_INVALID',
        `The disk image ${path} cannot be read: ${errnoOf(error) ?? 'unknown'}.`,
        {
          cause: error,
        },
      );
    },
  );
  if (!isFile || size === 0) {
    throw new DecantError('OCI_SOURCE_INVALID', `${path} is not a disk image: it is ${isFile ? 'empty' : 'no file'}.`);
  }
  const hash = await session.hash();
  const context = { client: session.client, fetch: session.fetch, hash, codec: session.codec, ...options };
  const name = formatImageName(parseImageName(facts.name));
  await using file = await openFileRandomAccess(path);
  const filesystem = await detectFilesystem(file);
  const config: ImageConfig | null = null;
  if (facts.format === 'cas-streaming') {
    const published = await publishStreaming(
      {
        ...facts,
        name,
        pieces: filePieces(file, signal),
        expectedBytes: size,
        filesystem,
        layout: 'foreign',
        architecture: null,
        config,
      },
      context,
    );
    return { published, layoutMs: 0 };
  }
  if (filesystem !== 'ext4') {
    throw new DecantError('OCI_SOURCE_INVALID', `${path} holds no ext4 filesystem.`, {
      hint: 'Import it with --streaming, which takes any disk image.',
    });
  }
  return {
    published: await publishArchive(
      { ...facts, name, file: path, contentBytes: size, config, layout: 'foreign' },
      context,
    ),
    layoutMs: 0,
  };
}

async function* filePieces(file: RandomAccess, signal: AbortSignal | undefined): AsyncGenerator<ImagePiece> {
  for (let offset = 0; offset < file.sizeBytes; offset += MIB) {
    const bytes = await file.read(offset, Math.min(MIB, file.sizeBytes - offset), { signal });
    yield { type: 'data', bytes };
  }
}

/** The name of a file or directory, without its endings, as an image name. */
function defaultName(path: string): string {
  const slug = basename(path)
    .toLowerCase()
    .replace(/\.(tar|raw|img|ext4|erofs|oci)$/, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  return slug === '' ? 'image' : slug;
}
