import { stat } from 'node:fs/promises';

import { openFileRandomAccess } from '@decant/cas/node';
import {
  DecantError,
  errnoOf,
  formatImageName,
  MIB,
  parseImageName,
  releaseBytes,
  type ImageConfig,
} from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import type { OciImage } from '@decant/oci';
import { publishArchive, publishStreaming, type PublishResult } from '@decant/publish';
import { detectFilesystem } from '@decant/rootfs';
import type { ImagePiece, RandomAccess } from '@decant/cas';

import { filesystemFacts, type FilesystemRequest } from './filesystem-request.ts';
import { imageResult, makeImage, publishContext } from './image-make.ts';
import { rootOfOverlay } from './image-transfer-overlay.ts';
import { rootOfDirectory, rootOfTar } from './image-transfer-root.ts';
import { openSource } from './image-transfer-source.ts';
import { parsePlatform } from './image-transfer.ts';
import { isLayered, nameOfPath, parseSource, type LayeredSource, type RootSource } from './import-source.ts';
import type { ImageResult } from './results.ts';
import type { Session, WorkOptions } from './session.ts';

export interface ImportImageRequest extends FilesystemRequest {
  /**
   * `registry:REF`; `docker:REF`, `podman:REF`, `buildah:REF` of an engine here; `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
   * `docker-archive:FILE[:NAME]`; `tar:FILE` (a root filesystem), `dir:PATH` (the same in a directory), `overlay2:PATH` (a
   * directory of Docker's storage with those below it) or `raw:FILE` (a disk).
   */
  readonly source: string;
  /** `NAME[:TAG]`; default: from the source. */
  readonly name?: string | undefined;
  /** Of an image for several platforms; default: Linux on this machine's processor. */
  readonly platform?: string | undefined;
}

/** Makes an admitted, named image of one that exists as files. @throws OCI_…, LAYER_INVALID, USAGE, INGEST_… */
export async function importImage(
  session: Session,
  request: ImportImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<ImageResult> {
  const started = performance.now();
  const source = parseSource(request.source);
  const facts = filesystemFacts(request);
  if (source.kind === 'raw') checkRaw(request);
  if (request.name !== undefined) parseImageName(request.name);
  await using scratch = await openScratchDirectory(session.paths.scratch);
  const options = { scratchDirectory: scratch.path, onEvent, signal };
  const made = isLayered(source)
    ? await importOci(session, source, { ...facts, name: request.name, platform: request.platform }, options)
    : await importRoot(session, source, { ...facts, name: request.name ?? nameOfPath(source.path) }, options);
  const total = Math.round(performance.now() - started);
  return imageResult(session, made.published, { build: 0, layout: made.layoutMs, total }, signal);
}

type ImportFacts = ReturnType<typeof filesystemFacts>;

function checkRaw({ ext4 }: FilesystemRequest): void {
  if (ext4 === undefined) return;
  throw new DecantError('USAGE', 'A disk image is taken as it is: it gets no other label, UUID or free room.', {
    hint: 'Leave them out.',
  });
}

interface ImportOptions extends WorkOptions {
  readonly scratchDirectory: string;
}

async function importOci(
  session: Session,
  source: LayeredSource,
  facts: ImportFacts & { readonly name: string | undefined; readonly platform: string | undefined },
  options: ImportOptions,
) {
  const platform = parsePlatform(facts.platform);
  await using image = await openSource(session, source, { ...options, platform, limits: facts.limits });
  // Awaited here: the image is given up when this function returns.
  return await makeImage(session, image, { ...facts, name: facts.name ?? nameOfImage(image, source) }, options);
}

async function importRoot(
  session: Session,
  { kind, path }: RootSource,
  facts: ImportFacts & { readonly name: string },
  options: ImportOptions,
) {
  if (kind === 'raw') return importRaw(session, path, facts, options);
  const root =
    kind === 'tar' ? rootOfTar(path) : await (kind === 'dir' ? rootOfDirectory : rootOfOverlay)(path, options);
  return await makeImage(session, root, facts, options);
}

/**
 * The last segment of the image's own name, with its tag; else the name of the file. In a layout a name is often
 * a tag alone, and then the directory names the image.
 */
function nameOfImage(image: OciImage, source: LayeredSource): string {
  const path = 'path' in source ? source.path : source.reference.split('@')[0]!;
  for (const reference of [image.reference ?? '', ...image.tags]) {
    const last = reference.split('@')[0]?.split('/').at(-1) ?? '';
    const isTag = source.kind === 'oci' && last === reference && !last.includes(':');
    try {
      return formatImageName(parseImageName(isTag ? `${nameOfPath(path)}:${last}` : last));
    } catch {
      continue;
    }
  }
  return nameOfPath(path);
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
  const context = await publishContext(session, options);
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
    // Cut and copied by now; what the collector has not got to yet would be many times the chunks in hand.
    releaseBytes(bytes);
  }
}
