import {
  openDockerArchive,
  openOciLayout,
  openRegistryImage,
  parseReference,
  type OciImage,
  type OciLimits,
  type Platform,
} from '@decant/oci';
import { createNodeFetch } from '@decant/transport/node';

import { registryCredentials } from './image-transfer-credentials.ts';
import { saveFromEngine } from './image-transfer-engine.ts';
import type { LayeredSource } from './import-source.ts';
import type { Session, WorkOptions } from './session.ts';

export interface OpenSourceOptions extends WorkOptions {
  /** Private directory for what is downloaded or saved; it must live as long as the image. */
  readonly scratchDirectory: string;
  /** Default: the only one, or Linux on this machine's processor. */
  readonly platform?: Platform | undefined;
  readonly limits?: Partial<OciLimits> | undefined;
}

/** Opens the image of a source. @throws the errors of `@decant/oci`; NOT_FOUND when no engine has it. */
export async function openSource(
  session: Session,
  source: LayeredSource,
  options: OpenSourceOptions,
): Promise<OciImage> {
  const { platform, limits, signal } = options;
  switch (source.kind) {
    case 'oci':
      return openOciLayout(source.path, { tag: source.tag, platform, limits, signal });
    case 'docker-archive':
      return openDockerArchive(source.path, { platform, limits, signal });
    case 'docker':
      return openDockerArchive(await saveFromEngine(source.reference, options), { platform, limits, signal });
    default:
      return openRegistrySource(session, source.reference, options);
  }
}

async function openRegistrySource(session: Session, reference: string, options: OpenSourceOptions): Promise<OciImage> {
  const { scratchDirectory, platform, limits, onEvent, signal } = options;
  const http = createNodeFetch();
  const { fetch } = http;
  try {
    const image = await openRegistryImage(parseReference(reference), {
      ...{ fetch, credentials: registryCredentials(session), scratchDirectory, platform, limits, onEvent, signal },
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
