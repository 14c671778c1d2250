import { randomUUID } from 'node:crypto';

import {
  parseImageId,
  parseNamespace,
  type BuildId,
  type ChunkId,
  type ClaimedJob,
  type ImageId,
  type Namespace,
  type Template,
} from '@decant/core';
import { afterEach, beforeEach, expect } from 'vitest';

import { INGEST_JOB, type AdmissionCommit, type BuildRow, type ImageRow, type MetadataStore } from './store.ts';

/** Two connections to the same fresh store, such as two processes would have. */
export interface MetadataStoreFixture extends AsyncDisposable {
  readonly store: MetadataStore;
  readonly second: MetadataStore;
}

export const acme = parseNamespace('acme');
export const other = parseNamespace('other');
/** An error with this code. */
export const code = (expected: string) => expect.objectContaining({ code: expected });
/** 64 hex digits. */
export const digits = (n: number) => n.toString(16).padStart(64, '0');
export const imageIdOf = (n: number): ImageId => parseImageId(`cas-v1:${digits(n)}`);
export const chunkIdOf = (n: number) => digits(n) as ChunkId;

export function imageRow(id: ImageId, configDigest: string | null = null): ImageRow {
  return {
    record: {
      id,
      format: 'cas-streaming',
      filesystem: 'erofs',
      layout: 'hinted',
      architecture: 'arm64',
      virtualBytes: 2 ** 40,
      contentBytes: 8192,
      chunks: 2,
      storedBytes: 5000,
      createdAt: '2020-01-01T00:00:00.000Z',
    },
    configDigest,
  };
}

const template = (build: BuildRow): Template => ({
  id: build.id,
  name: `${build.name}:${build.tag}`,
  snapshotId: build.snapshotId,
  snapshotUri: 'decant://x/y',
  snapshotFormatVersion: 'v',
  snapshotSizeBytes: 1,
  rootfsDiskBytes: 2,
  rootfsNodeKind: 'base',
  public: false,
  imageId: imageIdOf(1),
});

export function commitOf(build: BuildRow, image: ImageRow, change: Partial<AdmissionCommit> = {}): AdmissionCommit {
  return {
    build,
    image,
    packs: [],
    configDigest: image.configDigest,
    diskBytes: 0,
    template: template(build),
    ...change,
  };
}

/** The stores of the test that runs, with two namespaces in them, and what tests do with them again and again. */
export interface ContractStores {
  readonly store: MetadataStore;
  readonly second: MetadataStore;
  prepare(namespace?: Namespace, imageName?: string, tag?: string): Promise<BuildRow>;
  /** Completes a prepared build and claims its job. */
  begin(build: BuildRow): Promise<ClaimedJob>;
  /** Makes the image number `n` visible under a name. */
  admit(n: number, namespace?: Namespace, imageName?: string, tag?: string): Promise<BuildRow>;
}

/** Opens fresh stores for every test of the describe block around it. */
export function useStores(open: () => Promise<MetadataStoreFixture>): ContractStores {
  let fixture: MetadataStoreFixture;
  beforeEach(async () => {
    fixture = await open();
    await fixture.store.keys.ensureNamespace(acme);
    await fixture.store.keys.ensureNamespace(other);
  });
  afterEach(() => fixture[Symbol.asyncDispose]());
  const stores: ContractStores = {
    get store() {
      return fixture.store;
    },
    get second() {
      return fixture.second;
    },
    prepare: (namespace = acme, imageName = 'app', tag = 'latest') =>
      fixture.store.builds.create({
        id: randomUUID() as BuildId,
        namespace,
        snapshotId: randomUUID(),
        name: imageName,
        tag,
        format: 'cas-streaming',
        request: { name: imageName, extra: ['kept'] },
      }),
    async begin(build) {
      await fixture.store.builds.beginIngest(build.namespace, build.id, {});
      const job = await fixture.store.jobs.claim([INGEST_JOB], 60_000);
      if (job === undefined) throw new Error('there is no job');
      return job;
    },
    async admit(n, namespace = acme, imageName = 'app', tag = 'latest') {
      const build = await stores.prepare(namespace, imageName, tag);
      await fixture.store.builds.commit(await stores.begin(build), commitOf(build, imageRow(imageIdOf(n))));
      return build;
    },
  };
  return stores;
}
