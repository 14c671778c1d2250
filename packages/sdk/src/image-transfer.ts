import { openScratchDirectory } from '@decant/core/node';
import {
  formatPlatform,
  parseReference,
  formatReference,
  pushImage as pushToRegistry,
  writeOciLayout,
  type Platform,
} from '@decant/oci';
import { DecantError, quote, stage } from '@decant/core';
import { createNodeFetch } from '@decant/transport/node';

import { registryCredentials } from './image-transfer-credentials.ts';
import { openSource } from './image-transfer-source.ts';
import { isLayered, parseSource } from './import-source.ts';
import type { Session, WorkOptions } from './session.ts';

export interface PullImageRequest {
  /** `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, as docker has it. */
  readonly reference: string;
  /** Missing or empty; becomes an OCI layout. */
  readonly directory: string;
  /** `OS/ARCHITECTURE[/VARIANT]`; default: the only one, or Linux on this machine's processor. */
  readonly platform?: string | undefined;
}

export interface PullImageResult {
  readonly reference: string;
  readonly digest: string;
  readonly platform: string;
  readonly layers: number;
  readonly bytes: number;
}

export interface PushImageRequest {
  /** `oci:DIR[:TAG]`, `docker-archive:FILE`, `docker:REF` or `registry:REF`. */
  readonly source: string;
  readonly reference: string;
  readonly platform?: string | undefined;
}

export interface PushImageResult {
  readonly reference: string;
  readonly digest: string;
  readonly sentBytes: number;
  readonly sentBlobs: number;
  readonly presentBlobs: number;
}

/** Copies one image of a registry into a directory, as an OCI layout, with the logins of docker, or the session's key where the server has the registry. */
export async function pullImage(
  session: Session,
  request: PullImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<PullImageResult> {
  const reference = parseReference(request.reference);
  const platform = parsePlatform(request.platform);
  await using scratch = await openScratchDirectory(session.paths.scratch);
  const source = { kind: 'registry', reference: request.reference } as const;
  await using image = await openSource(session, source, { scratchDirectory: scratch.path, platform, onEvent, signal });
  const { digest, sizeBytes } = await stage(onEvent, 'export', async (finish) => {
    const written = await writeOciLayout(image, request.directory, { signal });
    finish({ bytes: written.sizeBytes });
    return written;
  });
  return {
    reference: formatReference(reference),
    digest,
    platform: formatPlatform(image.platform),
    layers: image.layers.length,
    bytes: sizeBytes,
  };
}

/** Copies one image to a registry, with the logins of docker, or the session's key where the server has the registry. */
export async function pushImage(
  session: Session,
  request: PushImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<PushImageResult> {
  const reference = parseReference(request.reference);
  const platform = parsePlatform(request.platform);
  const source = parseSource(request.source);
  if (!isLayered(source)) {
    throw new DecantError('USAGE', `A ${source.kind}: source has no layers to push.`, {
      hint: 'Push oci:DIR[:TAG], docker-archive:FILE, docker:REF or registry:REF.',
    });
  }
  await using scratch = await openScratchDirectory(session.paths.scratch);
  await using image = await openSource(session, source, { scratchDirectory: scratch.path, platform, onEvent, signal });
  await using http = createNodeFetch();
  const options = { fetch: http.fetch, credentials: registryCredentials(session), onEvent, signal };
  return { reference: formatReference(reference), ...(await pushToRegistry(image, reference, options)) };
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
