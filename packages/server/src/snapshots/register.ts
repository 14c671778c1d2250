import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

import type { HashProvider, ThreadedCodec } from '@decant/cas';
import {
  formatImageName,
  parseImageId,
  parseImageName,
  Semaphore,
  type CreateSnapshot,
  type Fetch,
  type ImageName,
  type Namespace,
  type RootfsFormat,
} from '@decant/core';
import { publishImage } from '@decant/publish';
import { createHttpClient } from '@decant/transport';

import type { ImageSources } from '../builder/image-sources.ts';
import type { RepositoryPlace } from '../builder/local-registry.ts';
import type { SnapshotRow } from '../metadata/snapshot-store.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { EMBEDDED_HOST } from '../services.ts';

export interface SnapshotRegistrarOptions {
  readonly metadata: MetadataStore;
  readonly sources: ImageSources;
  /** The services' own handler, for calls on behalf of a namespace. */
  readonly fetchAs: (namespace: Namespace) => Fetch;
  readonly hash: () => Promise<HashProvider>;
  readonly codec: ThreadedCodec;
  readonly scratchDirectory: string;
}

/** Makes snapshots of images: an image that is not admitted yet is laid out, uploaded and admitted on the way. */
export interface SnapshotRegistrar {
  /** @throws NOT_FOUND, FORBIDDEN, BUILD_PLATFORM_UNSUPPORTED, and what publishing throws. */
  register(
    namespace: Namespace,
    request: CreateSnapshot,
    options: { readonly hosts: readonly string[]; readonly signal?: AbortSignal | undefined },
  ): Promise<SnapshotRow>;
}

/** Images that are laid out at a time: each holds the tree of its files in memory. */
const AT_A_TIME = 2;

export function createSnapshotRegistrar(options: SnapshotRegistrarOptions): SnapshotRegistrar {
  const { metadata, sources } = options;
  const slots = new Semaphore(AT_A_TIME);
  return {
    register: (namespace, request, { hosts, signal }) =>
      slots.run(async () => {
        const directory = await mkdtemp(join(options.scratchDirectory, 'snapshot-'));
        try {
          const { architecture } = request;
          const opening = { hosts, architecture, scratchDirectory: directory, signal };
          const { image: source, place } = await sources.open(request.image, namespace, opening);
          await using image = source;
          const build =
            image.manifestDigest === undefined || place === undefined
              ? undefined
              : await metadata.imageBuilds.findByImage(namespace, image.manifestDigest);
          const format: RootfsFormat =
            request.format ?? (build?.fields.nydus_convert === true ? 'cas-streaming' : 'ext4');
          const fetch = options.fetchAs(namespace);
          const { published } = await publishImage(
            image,
            { name: formatImageName(nameOf(request.image, place, build)), format, diskBytes: 0 },
            {
              client: createHttpClient({ baseUrl: `http://${EMBEDDED_HOST}`, fetch }),
              fetch,
              hash: await options.hash(),
              codec: options.codec,
              scratchDirectory: directory,
              signal,
            },
          );
          const { template } = published;
          const known = image.platform.architecture;
          return await metadata.snapshots.create({
            id: randomUUID(),
            namespace,
            imageId: parseImageId(template.imageId),
            imageName: template.name,
            architecture: known === 'amd64' || known === 'arm64' ? known : null,
            byteSize: template.snapshotSizeBytes,
            tags: request.tags ?? {},
            ttl: request.ttl ?? null,
          });
        } finally {
          await rm(directory, { recursive: true, force: true });
        }
      }, signal),
  };
}

/** The name the image gets here: that of its repository, and its tag there. */
function nameOf(reference: string, place: RepositoryPlace | undefined, build: ImageName | undefined): ImageName {
  const path = reference.split('@')[0]!;
  const last = path.slice(path.lastIndexOf('/') + 1);
  const named = place === undefined ? last : `${place.name}:${place.tag ?? build?.tag ?? 'latest'}`;
  return parseImageName(named);
}
