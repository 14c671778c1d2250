import {
  containersMirrors,
  openArchiveTree,
  openDockerArchive,
  openOciLayout,
  openOciLayoutTree,
  openRegistryImage,
  openRegistryTree,
  parseReference,
  type ImageTree,
  type OciImage,
  type OciLimits,
  type Platform,
} from '@decant/oci';
import { DecantError } from '@decant/core';
import { isAccessible } from '@decant/core/node';
import { createNodeFetch, type NodeFetch } from '@decant/transport/node';

import { registryCredentials } from './image-transfer-credentials.ts';
import { saveFromEngine } from './image-transfer-engine.ts';
import type { LayeredSource } from './import-source.ts';
import type { Session, WorkOptions } from './session.ts';

export interface OpenSourceOptions extends WorkOptions {
  /** Private directory for what is saved, unpacked or downloaded; it must live as long as the image. */
  readonly scratchDirectory: string;
  /** Default: the only one, or Linux on this machine's processor. */
  readonly platform?: Platform | undefined;
  /**
   * Where the layers of a registry go: `scratch`, for whoever reads them one after the other, gets several at a time;
   * with `reader` each is downloaded as it is read. Default `scratch`.
   */
  readonly downloads?: 'scratch' | 'reader' | undefined;
  readonly limits?: Partial<OciLimits> | undefined;
}

/** Opens the image of a source. @throws the errors of `@decant/oci`; NOT_FOUND when no engine has it. */
export async function openSource(
  session: Session,
  source: LayeredSource,
  options: OpenSourceOptions,
): Promise<OciImage> {
  const { scratchDirectory, platform, limits, onEvent, signal } = options;
  switch (source.kind) {
    case 'oci':
      return openOciLayout(source.path, { tag: source.tag, platform, limits, signal });
    case 'oci-archive':
    case 'docker-archive': {
      const { file, tag } = await splitArchive(source.path);
      return openDockerArchive(file, { tag, platform, limits, scratchDirectory, signal });
    }
    case 'registry':
      return withFetch(session, (registry) =>
        openRegistryImage(parseReference(source.reference), {
          ...{ ...registry, platform, limits, onEvent, signal },
          scratchDirectory: options.downloads === 'reader' ? undefined : scratchDirectory,
        }),
      );
    default:
      return openDockerArchive(await saveFromEngine(source, options), { platform, limits, signal });
  }
}

/** Opens all that a source names: every platform of an index. @throws USAGE for a source that has one image only. */
export async function openSourceTree(
  session: Session,
  source: LayeredSource,
  { scratchDirectory, signal }: OpenSourceOptions,
): Promise<ImageTree> {
  switch (source.kind) {
    case 'oci':
      return openOciLayoutTree(source.path, { tag: source.tag, signal });
    case 'oci-archive': {
      const { file, tag } = await splitArchive(source.path);
      return openArchiveTree(file, { tag, scratchDirectory, signal });
    }
    case 'registry':
      return withFetch(session, (registry) =>
        openRegistryTree(parseReference(source.reference), { ...registry, signal }),
      );
    default:
      throw new DecantError('USAGE', `A ${source.kind}: source holds images for one platform each.`, {
        hint: 'All platforms are in oci:DIR[:TAG], oci-archive:FILE[:TAG] and registry:REF.',
      });
  }
}

/** Opens with a fetch of its own, which ends with what was opened. */
async function withFetch<T extends AsyncDisposable>(
  session: Session,
  open: (registry: {
    readonly fetch: NodeFetch['fetch'];
    readonly credentials: ReturnType<typeof registryCredentials>;
    readonly mirrors: ReturnType<typeof containersMirrors>;
  }) => Promise<T>,
): Promise<T> {
  const http = createNodeFetch();
  try {
    const opened = await open({
      fetch: http.fetch,
      credentials: registryCredentials(session),
      mirrors: containersMirrors(),
    });
    return {
      ...opened,
      async [Symbol.asyncDispose]() {
        await opened[Symbol.asyncDispose]();
        await http.close();
      },
    };
  } catch (error) {
    await http.close();
    throw error;
  }
}

/** `FILE[:TAG]`: the longest part up to a colon that is there, so that files may have colons in their names. */
async function splitArchive(text: string): Promise<{ readonly file: string; readonly tag: string | undefined }> {
  for (let end = text.length; end > 0; end = text.lastIndexOf(':', end - 1)) {
    const file = text.slice(0, end);
    if (await isAccessible(file)) return { file, tag: end === text.length ? undefined : text.slice(end + 1) };
  }
  return { file: text, tag: undefined };
}
