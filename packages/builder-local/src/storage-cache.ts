import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { errnoOf } from '@decant/core';

/*
 * Image records of containers-storage(5):
 *   GRAPHROOT/DRIVER-images/images.json        [{ id, names, … }], oldest first
 *   GRAPHROOT/DRIVER-images/ID/=BASE64         a document of the image; that of its configuration is named after
 *                                              "sha256:ID", in base 64 because of the colon
 * buildah and podman take the first image of that list whose history says what a step says, so that an older
 * result is found before a newer one.
 */
const LARGEST_LIST = 64 * 1024 * 1024;
const LARGEST_CONFIG = 4 * 1024 * 1024;

interface ImageRecord {
  readonly id: string;
  readonly names: readonly string[];
}

interface HistoryEntry {
  readonly created?: string | undefined;
  readonly created_by?: string | undefined;
  readonly author?: string | undefined;
  readonly comment?: string | undefined;
  readonly empty_layer?: boolean | undefined;
}

/** The ids of all images of a storage. */
export async function imageIds(graphRoot: string, driver: string): Promise<Set<string>> {
  return new Set((await imageRecords(join(graphRoot, `${driver}-images`))).map(({ id }) => id));
}

/**
 * Images that were there `before` and are results of the same steps as images that came since: `removable` by id,
 * those with the most steps first, as an image goes after those made from it; `kept` are the names of those that have
 * some.
 */
export async function staleImages(
  graphRoot: string,
  driver: string,
  before: ReadonlySet<string>,
): Promise<{ readonly removable: readonly string[]; readonly kept: readonly string[] }> {
  const directory = join(graphRoot, `${driver}-images`);
  const images: (ImageRecord & { history: readonly HistoryEntry[] })[] = [];
  for (const record of await imageRecords(directory)) {
    const history = await historyOf(directory, record.id);
    if (history !== undefined) images.push({ ...record, history });
  }
  const fresh = images.filter(({ id }) => !before.has(id));
  const stale = images
    .filter((old) => before.has(old.id) && fresh.some(({ history }) => isReplaced(old.history, history)))
    .sort((a, b) => b.history.length - a.history.length);
  return {
    removable: stale.filter(({ names }) => names.length === 0).map(({ id }) => id),
    kept: stale.flatMap(({ names }) => names.slice(0, 1)),
  };
}

/** Whether two images are results of the same steps, and not the same result. */
export function isReplaced(old: readonly HistoryEntry[], fresh: readonly HistoryEntry[]): boolean {
  if (old.length !== fresh.length || old.length === 0) return false;
  const sameSteps = old.every((entry, i) => stepOf(entry) === stepOf(fresh[i]!));
  return sameSteps && old.some((entry, i) => entry.created !== fresh[i]!.created);
}

function stepOf({ created_by, author, comment, empty_layer }: HistoryEntry): string {
  return JSON.stringify([created_by ?? '', author ?? '', comment ?? '', empty_layer === true]);
}

async function imageRecords(directory: string): Promise<ImageRecord[]> {
  const list = await readJson(join(directory, 'images.json'), LARGEST_LIST);
  if (!Array.isArray(list)) return [];
  return list.flatMap((record: { id?: unknown; names?: unknown }) => {
    const { id, names } = record;
    if (typeof id !== 'string' || !/^[0-9a-f]{64}$/.test(id)) return [];
    return [{ id, names: Array.isArray(names) ? names.filter((name) => typeof name === 'string') : [] }];
  });
}

async function historyOf(directory: string, id: string): Promise<readonly HistoryEntry[] | undefined> {
  const name = `=${Buffer.from(`sha256:${id}`).toString('base64')}`;
  const config = (await readJson(join(directory, id, name), LARGEST_CONFIG)) as { history?: unknown } | undefined;
  return Array.isArray(config?.history) ? (config.history as HistoryEntry[]) : undefined;
}

/** Undefined for what is not there, larger than that or no JSON: another process may be writing or removing it. */
async function readJson(file: string, largest: number): Promise<unknown> {
  try {
    await using handle = await open(file);
    if ((await handle.stat()).size > largest) return undefined;
    return JSON.parse(await readFile(handle, 'utf8')) as unknown;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}
