import { openScratchDirectory } from '@decant/core/node';
import {
  formatPlatform,
  parseReference,
  formatReference,
  pushImage as pushToRegistry,
  writeOciLayout,
  type ImageTree,
  type OciImage,
  type Platform,
} from '@decant/oci';
import { DecantError, quote, Scope, stage } from '@decant/core';
import { createNodeFetch } from '@decant/transport/node';

import { registryCredentials } from './image-transfer-credentials.ts';
import { openSource, openSourceTree } from './image-transfer-source.ts';
import { isLayered, parseSource, type LayeredSource } from './import-source.ts';
import type { Session, WorkOptions } from './session.ts';

export interface PullImageRequest {
  /** `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, as docker has it. */
  readonly reference: string;
  /** Missing or empty; becomes an OCI layout. */
  readonly directory: string;
  /** `OS/ARCHITECTURE[/VARIANT]`; default: the only one, or Linux on this machine's processor. */
  readonly platform?: string | undefined;
  /** Everything that the reference names, as it is: an index with the images of all platforms. */
  readonly all?: boolean | undefined;
}

export interface PullImageResult {
  readonly reference: string;
  /** Of the manifest or index. */
  readonly digest: string;
  readonly platforms: readonly string[];
  readonly blobs: number;
  readonly bytes: number;
}

export interface PushImageRequest {
  /**
   * `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`, `registry:REF`, or `docker:REF`, `podman:REF`,
   * `buildah:REF` of an engine here.
   */
  readonly source: string;
  readonly reference: string;
  readonly platform?: string | undefined;
  /** An index with the images of all platforms, as it is. */
  readonly all?: boolean | undefined;
}

export interface PushImageResult {
  readonly reference: string;
  readonly digest: string;
  readonly sentBytes: number;
  readonly sentBlobs: number;
  readonly presentBlobs: number;
}

/**
 * Copies an image of a registry into a directory, as an OCI layout, with the logins of docker, or the session's key
 * where the server has the registry.
 */
export async function pullImage(
  session: Session,
  request: PullImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<PullImageResult> {
  const { reference, directory } = request;
  const name = formatReference(parseReference(reference));
  const source = { kind: 'registry', reference } as const;
  await using opened = await openForCopy(session, source, request, { onEvent, signal });
  const { image } = opened;
  const { digest, sizeBytes } = await stage(onEvent, 'fetch', async (finish) => {
    const written = await writeOciLayout(image, directory, { onEvent, signal });
    finish({ bytes: written.sizeBytes });
    return written;
  });
  const platforms = 'top' in image ? image.platforms : [image.platform];
  // An image's layers, each once, and its configuration.
  const blobs = 'top' in image ? image.blobs.length : new Set(image.layers.map((layer) => layer.digest)).size + 1;
  return { reference: name, digest, platforms: platforms.map(formatPlatform), blobs, bytes: sizeBytes };
}

/**
 * Copies an image to a registry, with the logins of docker, or the session's key where the server has the registry.
 * Blobs of an image in the same registry are mounted.
 */
export async function pushImage(
  session: Session,
  request: PushImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<PushImageResult> {
  const reference = parseReference(request.reference);
  const source = parseSource(request.source);
  if (!isLayered(source)) {
    throw new DecantError('USAGE', `A ${source.kind}: source has no layers to push.`, {
      hint: 'Push oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, docker:REF, podman:REF, buildah:REF or registry:REF.',
    });
  }
  await using opened = await openForCopy(session, source, request, { onEvent, signal });
  await using http = createNodeFetch();
  const from = source.kind === 'registry' ? parseReference(source.reference) : undefined;
  const mountFrom = from?.registry === reference.registry ? from.repository : undefined;
  const options = { fetch: http.fetch, credentials: registryCredentials(session), mountFrom, onEvent, signal };
  return { reference: formatReference(reference), ...(await pushToRegistry(opened.image, reference, options)) };
}

async function openForCopy(
  session: Session,
  source: LayeredSource,
  { platform: text, all = false }: Pick<PushImageRequest, 'platform' | 'all'>,
  { onEvent, signal }: WorkOptions,
): Promise<AsyncDisposable & { readonly image: OciImage | ImageTree }> {
  if (all && text !== undefined) {
    throw new DecantError('USAGE', 'All platforms and one platform cannot both be asked for.');
  }
  const platform = parsePlatform(text);
  await using scope = new Scope();
  const { path: scratchDirectory } = scope.use(await openScratchDirectory(session.paths.scratch));
  const options = { scratchDirectory, platform, downloads: 'reader', onEvent, signal } as const;
  const image = scope.use(await (all ? openSourceTree : openSource)(session, source, options));
  const kept = scope.move();
  return { image, [Symbol.asyncDispose]: () => kept[Symbol.asyncDispose]() };
}

/** `OS/ARCHITECTURE[/VARIANT]`. @throws USAGE */
export function parsePlatform(text: string | undefined): Platform | undefined {
  if (text === undefined) return undefined;
  const [, os, architecture, variant] =
    /^([a-z0-9]{1,32})\/([a-z0-9_]{1,32})(?:\/([a-z0-9.]{1,32}))?$/.exec(text) ?? [];
  if (os === undefined || architecture === undefined) {
    throw new DecantError('USAGE', `Not a platform: ${quote(text)}.`, { hint: 'Write it like linux/arm64.' });
  }
  return { os, architecture, variant };
}
