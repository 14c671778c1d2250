import { isDeepStrictEqual } from 'node:util';

import type { Locator, Manifest } from '@decant/cas';
import { DecantError, isStreamingImageId, parseImageId, stage, type ImageDetail } from '@decant/core';
import {
  diffTrees,
  readErofs,
  type ChangedFact,
  type ErofsImage,
  type ImageNode,
  type TreeChange,
} from '@decant/rootfs';
import { createImageDisk, type ImageDisk } from '@decant/stream';

import { inspectImage } from './image-names.ts';
import { openStreamingSource } from './image-source.ts';
import { sameContent } from './same-content.ts';
import type { Session, WorkOptions } from './session.ts';

export interface DiffImagesRequest {
  /** The image that is compared with: `NAME[:TAG]` or an id. */
  readonly before: string;
  readonly after: string;
  /** Leave out entries of which only the modification time differs. */
  readonly ignoreTimes?: boolean | undefined;
}

/** One entry as a diff shows it. */
export interface DiffEntry {
  readonly kind: ImageNode['kind'];
  /** Of a file; 0 for anything else. */
  readonly sizeBytes: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
}

export interface ImageChange {
  /** From `/`, as UTF-8; what is none is replaced, and `pathBase64` has the bytes. */
  readonly path: string;
  readonly pathBase64?: string;
  readonly change: TreeChange['change'];
  readonly facts: readonly ChangedFact[];
  readonly before: DiffEntry | null;
  readonly after: DiffEntry | null;
}

export interface ImageDiff {
  readonly before: { readonly ref: string; readonly id: string };
  readonly after: { readonly ref: string; readonly id: string };
  /** Whether the two have the same id. */
  readonly identical: boolean;
  /** Depth-first, in byte order of the names. */
  readonly changes: readonly ImageChange[];
  readonly counts: Readonly<Record<TreeChange['change'], number>>;
  /** Members of the configuration that differ, such as `Env`. */
  readonly config: readonly string[];
  /** What someone who has the first image still needs for the second. */
  readonly cost: {
    readonly chunks: { readonly total: number; readonly new: number; readonly shared: number };
    readonly bytes: {
      /** Plain bytes of all chunks of the second image, and of the new ones. */
      readonly total: number;
      readonly new: number;
      /** The same as stored at rest, compressed. */
      readonly totalStored: number;
      readonly newStored: number;
    };
  };
  /** Stored bytes of the chunks that were read to compare the two. */
  readonly readBytes: number;
}

/** Plain bytes of chunks that are kept of each image. */
const MEMORY_BYTES = 32 * 1024 * 1024;

interface Opened extends AsyncDisposable {
  readonly ref: string;
  readonly detail: ImageDetail;
  readonly manifest: Manifest;
  readonly locator: Locator;
  readonly disk: ImageDisk;
  readonly erofs: ErofsImage;
}

/**
 * Compares two streaming images by path, and counts the chunks that the second has and the first has not. Metadata is
 * read in full; of files only what does not lie in the same place of the same chunk.
 * @throws USAGE for an image whose files cannot be read without mounting it
 */
export async function diffImages(
  session: Session,
  request: DiffImagesRequest,
  { onEvent, signal }: WorkOptions,
): Promise<ImageDiff> {
  // Both are known to be comparable before anything is read.
  const details = [await comparable(session, request.before, signal), await comparable(session, request.after, signal)];
  return stage(onEvent, 'diff', async (finish) => {
    await using before = await openImage(session, request.before, details[0]!, signal);
    await using after = await openImage(session, request.after, details[1]!, signal);
    const changes: ImageChange[] = [];
    const counts = { added: 0, removed: 0, changed: 0 };
    const trees = diffTrees(before.erofs.root, after.erofs.root, {
      sameContent: (old, fresh) => sameContent(before, old, after, fresh, { signal }),
      signal,
    });
    for await (const change of trees) {
      if (request.ignoreTimes === true && change.facts.length === 1 && change.facts[0] === 'time') continue;
      counts[change.change]++;
      changes.push(changeOf(change));
      if (changes.length % PROGRESS_EVERY === 0) {
        onEvent?.({ type: 'stage-progress', stage: 'diff', items: changes.length });
      }
    }
    const readBytes = before.disk.stats().bytesFetched + after.disk.stats().bytesFetched;
    finish({ items: changes.length, bytes: readBytes });
    const [one, other] = [before.detail.image.id, after.detail.image.id];
    return {
      before: { ref: before.ref, id: one },
      after: { ref: after.ref, id: other },
      identical: one === other,
      changes,
      counts,
      config: configChanges(before.detail, after.detail),
      cost: costOf(before.manifest, after),
      readBytes,
    };
  });
}

const PROGRESS_EVERY = 100;

async function comparable(session: Session, ref: string, signal: AbortSignal | undefined): Promise<ImageDetail> {
  const detail = await inspectImage(session, ref, { signal });
  const { image } = detail;
  if (isStreamingImageId(parseImageId(image.id)) && image.filesystem === 'erofs') return detail;
  const what =
    image.filesystem === 'raw' ? 'a disk without a filesystem that decant knows' : `an ${image.filesystem} filesystem`;
  throw new DecantError('USAGE', `${ref} is ${what}, whose files are not compared.`, {
    hint: 'Compare images that were made with --streaming.',
    details: { id: image.id, filesystem: image.filesystem },
  });
}

async function openImage(
  session: Session,
  ref: string,
  detail: ImageDetail,
  signal: AbortSignal | undefined,
): Promise<Opened> {
  const { manifest, source, cache, locator } = await openStreamingSource(session, detail.image.id, signal);
  const hash = await session.hash();
  const disk = createImageDisk({ manifest, source, cache, hash, codec: session.codec, memoryBytes: MEMORY_BYTES });
  const dispose = () => disk[Symbol.asyncDispose]();
  try {
    const erofs = await readErofs(disk, { signal });
    return { ref, detail, manifest, locator, disk, erofs, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

function costOf(before: Manifest, { manifest, locator }: Opened): ImageDiff['cost'] {
  const chunks = { total: manifest.chunkCount, new: 0, shared: 0 };
  const bytes = { total: manifest.chunkBytes, new: 0, totalStored: 0, newStored: 0 };
  for (const { id, plainBytes, entry } of manifest.chunks()) {
    const storedBytes = locator.record(entry)?.storedBytes ?? 0;
    bytes.totalStored += storedBytes;
    if (before.indexOf(id) !== undefined) {
      chunks.shared++;
      continue;
    }
    chunks.new++;
    bytes.new += plainBytes;
    bytes.newStored += storedBytes;
  }
  return { chunks, bytes };
}

function changeOf({ path, change, facts, before, after }: TreeChange): ImageChange {
  const bytes = Buffer.from(path, 'latin1');
  const text = bytes.toString('utf8');
  const isText = Buffer.from(text, 'utf8').equals(bytes);
  return {
    path: text,
    ...(isText ? {} : { pathBase64: bytes.toString('base64') }),
    change,
    facts,
    before: entryOf(before),
    after: entryOf(after),
  };
}

function entryOf(node: ImageNode | undefined): DiffEntry | null {
  if (node === undefined) return null;
  const { mode, uid, gid, mtimeSeconds, mtimeNanoseconds } = node.meta;
  const sizeBytes = node.kind === 'file' ? node.sizeBytes : 0;
  return { kind: node.kind, sizeBytes, mode, uid, gid, mtimeSeconds, mtimeNanoseconds };
}

/** Members of the platform and of what is run, as the image's id has them. */
function configChanges({ config: before }: ImageDetail, { config: after }: ImageDetail): string[] {
  const old: Readonly<Record<string, unknown>> = { ...before, ...before?.config };
  const fresh: Readonly<Record<string, unknown>> = { ...after, ...after?.config };
  const names = new Set([...Object.keys(old), ...Object.keys(fresh)]);
  names.delete('config');
  return [...names].filter((name) => !isDeepStrictEqual(old[name], fresh[name])).sort();
}
