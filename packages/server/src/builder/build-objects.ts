import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';

import type { Namespace, ObjectStore } from '@decant/core';
import { namespacePrefix } from '@decant/ingest';

/** What a build that waits keeps in the object store, so that any worker can run it. */
export function contextKey(namespace: Namespace, buildId: string): string {
  return `${namespacePrefix(namespace)}builds/${buildId}/context`;
}

export function dockerfileKey(namespace: Namespace, buildId: string): string {
  return `${namespacePrefix(namespace)}builds/${buildId}/dockerfile`;
}

export async function putFile(store: ObjectStore, key: string, file: string, signal?: AbortSignal): Promise<void> {
  await store.put(key, createReadStream(file), { signal });
}

export async function readToFile(store: ObjectStore, key: string, file: string, signal?: AbortSignal): Promise<void> {
  await using handle = await open(file, 'wx', 0o600);
  for await (const piece of store.stream(key, { signal })) await handle.writeFile(piece);
}

export async function removeBuildObjects(store: ObjectStore, namespace: Namespace, buildId: string): Promise<void> {
  await store.delete(contextKey(namespace, buildId));
  await store.delete(dockerfileKey(namespace, buildId));
}
