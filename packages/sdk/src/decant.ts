import type { LogItem } from '@decant/builder-remote';
import type {
  ApiKey,
  CollectedRegistry,
  ImageDetail,
  NamedImage,
  NameHistory,
  RemoteBuild,
  Snapshot,
  SnapshotAlias,
} from '@decant/core';

import { createBottles, type Bottles } from './bottles.ts';
import { createImage, type CreateImageRequest } from './image-create.ts';
import { deriveImage, type DeriveImageRequest } from './image-derive.ts';
import { diffImages, type DiffImagesRequest, type ImageDiff } from './image-diff.ts';
import { exportImage, type ExportRequest } from './image-export.ts';
import { importImage, type ImportImageRequest } from './image-import.ts';
import { inspectImage, listImages, nameHistory, removeName, tagImage } from './image-names.ts';
import { runImageByName, type RunImageRequest, type RunImageResult } from './image-run.ts';
import { serveImage, type ServedImage, type ServeImageRequest } from './image-serve.ts';
import {
  pullImage,
  pushImage,
  type PullImageRequest,
  type PullImageResult,
  type PushImageRequest,
  type PushImageResult,
} from './image-transfer.ts';
import { verifyImage, type VerifyResult } from './image-verify.ts';
import { createKey, listKeys, revokeKey } from './keys.ts';
import { collectRegistry, type CollectRegistryRequest } from './registry-collect.ts';
import type { ImageResult } from './results.ts';
import { createSession, type DecantOptions, type WorkOptions } from './session.ts';
import {
  createSnapshot,
  getSnapshot,
  listSnapshotAliases,
  listSnapshots,
  removeSnapshotAlias,
  retireSnapshot,
  setSnapshotAlias,
  type CreatedSnapshot,
  type CreateSnapshotRequest,
  type ListSnapshotsRequest,
  type SnapshotPage,
} from './snapshot.ts';

/**
 * decant for a program. Every call goes through the `fetch` it was given, so the same code works against a
 * server and against the embedded one.
 */
export interface Decant {
  readonly images: {
    /** Builds a context, at the image-builder or with a local engine, and makes it an admitted, named image. */
    create(request: CreateImageRequest, options?: WorkOptions): Promise<ImageResult>;
    /** Makes an image from another with a directory added as the agent's workspace. */
    derive(request: DeriveImageRequest, options?: WorkOptions): Promise<ImageResult>;
    /** Makes an image from one that exists: in a registry, in an engine, in files, or as a root filesystem. */
    import(request: ImportImageRequest, options?: WorkOptions): Promise<ImageResult>;
    /** Copies an image of a registry into a directory, as an OCI layout. */
    pull(request: PullImageRequest, options?: WorkOptions): Promise<PullImageResult>;
    /** Copies an image of a directory, file, engine or registry to a registry. */
    push(request: PushImageRequest, options?: WorkOptions): Promise<PushImageResult>;
    list(options?: WorkOptions): Promise<NamedImage[]>;
    /** By `NAME[:TAG]` or by image id. */
    inspect(ref: string, options?: WorkOptions): Promise<ImageDetail>;
    /** Removes the name only; the image and its chunks stay. */
    remove(name: string, options?: WorkOptions): Promise<void>;
    /** Points `name` at the image that `ref` names. */
    tag(ref: string, name: string, options?: WorkOptions): Promise<NamedImage>;
    history(name: string, options?: WorkOptions): Promise<NameHistory>;
    /** Reads and re-hashes every chunk of the image. @throws CAS_CHUNK_MISMATCH or CAS_CHUNK_MISSING naming the chunk. */
    verify(ref: string, options?: WorkOptions): Promise<VerifyResult>;
    /** Compares two streaming images by path, and counts the chunks that only the second has. */
    diff(request: DiffImagesRequest, options?: WorkOptions): Promise<ImageDiff>;
    /** Writes the image as a disk to a file: every byte, or with holes where it has holes. */
    export(
      request: ExportRequest,
      options?: WorkOptions,
    ): Promise<{ readonly bytes: number; readonly contentBytes: number }>;
    /** Serves the image over NBD on a Unix socket until it is disposed of. */
    serve(request: ServeImageRequest, options?: WorkOptions): Promise<ServedImage>;
    /** Runs a command in the image, streaming what it reads: a bottle that ends with it, without network unless hosts are allowed. */
    run(request: RunImageRequest, options?: WorkOptions): Promise<RunImageResult>;
  };
  readonly bottles: Bottles;
  /** Builds at the image-builder, of this client or any other of the namespace. */
  readonly builds: {
    list(
      page?: { readonly limit?: number | undefined; readonly cursor?: string | undefined },
      options?: WorkOptions,
    ): Promise<{ readonly builds: readonly RemoteBuild[]; readonly nextCursor: string | null }>;
    get(id: string, options?: WorkOptions): Promise<RemoteBuild>;
    /** The log from its first line to its end, which is that of the build. */
    logs(id: string, options?: WorkOptions): AsyncGenerator<LogItem, void>;
    /** Ends a build; harmless for one that has ended or never was. */
    cancel(id: string, options?: WorkOptions): Promise<void>;
  };
  readonly snapshots: {
    /** Builds a context, or takes an image that exists, registers it and points aliases at it. */
    create(request: CreateSnapshotRequest, options?: WorkOptions): Promise<CreatedSnapshot>;
    list(request?: ListSnapshotsRequest, options?: WorkOptions): Promise<SnapshotPage>;
    /** By id or `@ALIAS`, here and below. */
    get(ref: string, options?: WorkOptions): Promise<Snapshot>;
    retire(ref: string, options?: WorkOptions): Promise<Snapshot>;
    aliases(ref: string, options?: WorkOptions): Promise<SnapshotAlias[]>;
    /** Points an alias at the snapshot; one that exists moves. */
    setAlias(ref: string, alias: string, options?: WorkOptions): Promise<void>;
    removeAlias(alias: string, options?: WorkOptions): Promise<void>;
  };
  readonly registry: {
    /** Removes the bytes of the server's registry that nothing needs any more. For operators. */
    collect(request?: CollectRegistryRequest, options?: Pick<WorkOptions, 'signal'>): Promise<CollectedRegistry>;
  };
  readonly keys: {
    create(namespace?: string): Promise<ApiKey & { readonly key: string }>;
    list(): Promise<ApiKey[]>;
    revoke(id: string): Promise<ApiKey>;
  };
}

export function createDecant(options: DecantOptions): Decant {
  const session = createSession(options);
  return {
    images: {
      create: (request, work = {}) => createImage(session, request, work),
      derive: (request, work = {}) => deriveImage(session, request, work),
      import: (request, work = {}) => importImage(session, request, work),
      pull: (request, work = {}) => pullImage(session, request, work),
      push: (request, work = {}) => pushImage(session, request, work),
      list: (work = {}) => listImages(session, work),
      inspect: (ref, work = {}) => inspectImage(session, ref, work),
      remove: (name, work = {}) => removeName(session, name, work),
      tag: (ref, name, work = {}) => tagImage(session, ref, name, work),
      history: (name, work = {}) => nameHistory(session, name, work),
      verify: (ref, work = {}) => verifyImage(session, ref, work),
      diff: (request, work = {}) => diffImages(session, request, work),
      export: (request, work = {}) => exportImage(session, request, work),
      serve: (request, work = {}) => serveImage(session, request, work),
      run: (request, work = {}) => runImageByName(session, request, work),
    },
    bottles: createBottles(session),
    builds: {
      list: (page = {}, { signal } = {}) => session.builder().list(page, { signal }),
      get: (id, { signal } = {}) => session.builder().get(id, { signal }),
      logs: (id, { signal } = {}) => session.builder().logs(id, { signal }),
      cancel: (id, { signal } = {}) => session.builder().cancel(id, { signal }),
    },
    snapshots: {
      create: (request, work = {}) => createSnapshot(session, request, work),
      list: (request = {}, work = {}) => listSnapshots(session, request, work),
      get: (ref, work = {}) => getSnapshot(session, ref, work),
      retire: (ref, work = {}) => retireSnapshot(session, ref, work),
      aliases: (ref, work = {}) => listSnapshotAliases(session, ref, work),
      setAlias: (ref, alias, work = {}) => setSnapshotAlias(session, ref, alias, work),
      removeAlias: (alias, work = {}) => removeSnapshotAlias(session, alias, work),
    },
    registry: {
      collect: (request = {}, work = {}) => collectRegistry(session, request, work),
    },
    keys: {
      create: (namespace) => createKey(session, namespace),
      list: () => listKeys(session),
      revoke: (id) => revokeKey(session, id),
    },
  };
}
