import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import {
  DecantError,
  snapshotAliasListSchema,
  snapshotPageSchema,
  snapshotSchema,
  type CreateSnapshot,
  type Snapshot,
  type SnapshotAlias,
} from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import { parseReference } from '@decant/oci';

import { pushToService } from './build-registry.ts';
import { architectureOf, buildImage, platformOf, type BuildImageRequest } from './build.ts';
import { defaultName } from './image-create.ts';
import type { Session, WorkOptions } from './session.ts';

export interface CreateSnapshotRequest extends Omit<BuildImageRequest, 'name' | 'platform' | 'streaming' | 'context'> {
  /** Directory to build, or … */
  readonly context?: string | undefined;
  /** … the reference of an image that exists: in the service's registry, or any that the builder can pull. */
  readonly image?: string | undefined;
  /** Of the image in the service's registry; default: the name of the context's directory. */
  readonly name?: string | undefined;
  readonly platform?: string | undefined;
  readonly format?: 'ext4' | 'cas-streaming' | undefined;
  /** Aliases to point at the snapshot. */
  readonly aliases?: readonly string[] | undefined;
  /** Seconds until it is retired; default: never. */
  readonly ttl?: number | undefined;
  readonly tags?: Readonly<Record<string, string>> | undefined;
}

export interface CreatedSnapshot {
  readonly snapshot: Snapshot;
  readonly aliases: readonly string[];
}

export interface SnapshotPage {
  readonly snapshots: readonly Snapshot[];
  readonly nextCursor: string | null;
}

export interface ListSnapshotsRequest {
  /** 1 to 100; default 20. */
  readonly limit?: number | undefined;
  readonly cursor?: string | undefined;
  /** Only those that have all of these. */
  readonly tags?: Readonly<Record<string, string>> | undefined;
  readonly excludeRetired?: boolean | undefined;
}

/** Longest that the service may take to make an image of what was built, in milliseconds. */
const REGISTER_TIMEOUT_MS = 60 * 60 * 1000;

/**
 * Registers what a context builds, or an image that exists. One in the service's registry is taken as it is; any other
 * goes through a build that does nothing but begin with it, so that whoever builds pulls it.
 * @throws USAGE unless exactly one of `context` and `image` is given.
 */
export async function createSnapshot(
  session: Session,
  request: CreateSnapshotRequest,
  work: WorkOptions,
): Promise<CreatedSnapshot> {
  const { context, image } = request;
  if ((context === undefined) === (image === undefined)) {
    throw new DecantError('USAGE', 'A snapshot is made of a context or of an image, one of them.');
  }
  const platform = platformOf(request.platform);
  await using scratch = await openScratchDirectory(session.paths.scratch);
  if (context !== undefined)
    return await buildAndRegister(session, { ...request, context, platform }, scratch.path, work);
  const { registry, repository } = parseReference(image!);
  if (registry === new URL(session.options.baseUrl).host) {
    const architecture = platform === undefined ? request.architecture : architectureOf(platform);
    return await registerImage(session, { image: image!, architecture }, request, work);
  }
  const directory = join(scratch.path, 'context');
  await mkdir(directory);
  await writeFile(join(directory, 'Dockerfile'), `FROM ${image}\n`);
  const name = request.name ?? defaultName(repository);
  return await buildAndRegister(session, { ...request, context: directory, name, platform }, scratch.path, work);
}

async function buildAndRegister(
  session: Session,
  request: Omit<CreateSnapshotRequest, 'platform'> & Pick<BuildImageRequest, 'context' | 'platform'>,
  scratchDirectory: string,
  work: WorkOptions,
): Promise<CreatedSnapshot> {
  const name = request.name ?? defaultName(request.context);
  const streaming = request.format !== 'ext4';
  const { built } = await buildImage(session, { ...request, name, streaming }, scratchDirectory, work);
  await using image = built;
  let { reference } = image;
  if (reference === undefined) {
    await using layers = await image.open({ signal: work.signal });
    reference = await pushToService(session, layers, name, work);
  }
  return await registerImage(session, { image: reference, architecture: image.architecture }, request, work);
}

/** Makes a snapshot of an image in the service's registry and points aliases at it: the one place where that happens. */
export async function registerImage(
  session: Session,
  built: { readonly image: string; readonly architecture?: 'amd64' | 'arm64' | undefined },
  request: Pick<CreateSnapshotRequest, 'aliases' | 'ttl' | 'tags' | 'format'>,
  { onEvent, signal }: WorkOptions,
): Promise<CreatedSnapshot> {
  const { aliases = [], ttl, tags, format } = request;
  const started = performance.now();
  const body: CreateSnapshot = {
    image: built.image,
    ...(built.architecture === undefined ? {} : { architecture: built.architecture }),
    ...(ttl === undefined ? {} : { ttl }),
    ...(tags === undefined ? {} : { tags: { ...tags } }),
    ...(format === undefined ? {} : { format }),
  };
  onEvent?.({ type: 'stage-started', stage: 'admit', message: 'registering' });
  const snapshot = await session.client.json(snapshotSchema, 'POST', '/v1/snapshots', {
    body,
    timeoutMs: REGISTER_TIMEOUT_MS,
    signal,
  });
  onEvent?.({
    type: 'stage-finished',
    stage: 'admit',
    message: snapshot.image_id ?? snapshot.id,
    elapsedMs: Math.round(performance.now() - started),
  });
  for (const alias of aliases) await setSnapshotAlias(session, snapshot.id, alias, { signal });
  return { snapshot, aliases };
}

/** By id, or by `@ALIAS`. */
export function getSnapshot(session: Session, ref: string, { signal }: WorkOptions): Promise<Snapshot> {
  return session.client.json(snapshotSchema, 'GET', snapshotPath(ref), { signal });
}

export async function listSnapshots(
  session: Session,
  request: ListSnapshotsRequest,
  { signal }: WorkOptions,
): Promise<SnapshotPage> {
  const { limit, cursor, tags = {}, excludeRetired } = request;
  const query: Record<string, string | number | boolean | undefined> = { limit, cursor };
  if (excludeRetired !== undefined) query['exclude_retired'] = excludeRetired;
  for (const [key, value] of Object.entries(tags)) query[`tags[${key}]`] = value;
  const page = await session.client.json(snapshotPageSchema, 'GET', '/v1/snapshots', { query, signal });
  return { snapshots: page.data, nextCursor: page.next_cursor };
}

/** No new sandboxes of it; it goes when nothing needs it any more. */
export async function retireSnapshot(session: Session, ref: string, { signal }: WorkOptions): Promise<Snapshot> {
  const id = await idOf(session, ref, signal);
  return session.client.json(snapshotSchema, 'POST', `${snapshotPath(id)}/retire`, { idempotent: true, signal });
}

/** Points an alias at a snapshot; one that exists moves. */
export async function setSnapshotAlias(
  session: Session,
  ref: string,
  alias: string,
  { signal }: WorkOptions,
): Promise<void> {
  const id = await idOf(session, ref, signal);
  const path = `${snapshotPath(id)}/aliases`;
  const response = await session.client.request('POST', path, { body: { alias }, idempotent: true, signal });
  await response.body?.cancel();
}

export async function listSnapshotAliases(
  session: Session,
  ref: string,
  { signal }: WorkOptions,
): Promise<SnapshotAlias[]> {
  const id = await idOf(session, ref, signal);
  return session.client.json(snapshotAliasListSchema, 'GET', `${snapshotPath(id)}/aliases`, { signal });
}

/** Removes an alias; the snapshot stays. */
export async function removeSnapshotAlias(session: Session, alias: string, { signal }: WorkOptions): Promise<void> {
  const response = await session.client.request('DELETE', `/v1/snapshot-aliases/${encodeURIComponent(alias)}`, {
    signal,
  });
  await response.body?.cancel();
}

/** An alias stands behind a literal `@`, itself percent-encoded. */
function snapshotPath(ref: string): string {
  const name = ref.startsWith('@') ? `@${encodeURIComponent(ref.slice(1))}` : encodeURIComponent(ref);
  return `/v1/snapshots/${name}`;
}

/** The id of a snapshot that may be given by an alias. */
async function idOf(session: Session, ref: string, signal: AbortSignal | undefined): Promise<string> {
  return ref.startsWith('@') ? (await getSnapshot(session, ref, { signal })).id : ref;
}
