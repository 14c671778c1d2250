import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import {
  DecantError,
  errnoOf,
  fromHex,
  imageIdDigits,
  quote,
  Scope,
  stage,
  toDecantError,
  type ChunkId,
} from '@decant/core';

import { createManifestBuilder } from '../manifest/manifest-builder.ts';
import { DEFAULT_MANIFEST_LIMITS, MANIFEST_ENTRY_BYTES, type ManifestFacts } from '../manifest/manifest-layout.ts';
import type { Manifest } from '../manifest/manifest.ts';
import { PACK_ROW_BYTES } from '../pack/pack-layout.ts';
import { CUT_RULES } from '../chunk/cut-rules.ts';
import { loadNodeHashProvider } from './node-hash-provider.ts';
import { openPackDirectory, packsFolder } from './pack-directory.ts';
import { fileFacts, poolOptions, requireUnchanged, type ScanOptions } from './scan-file.ts';
import { SharedIdSet } from './shared-id-set.ts';
import { stretchesOf } from './stripe-messages.ts';
import { StripePool } from './stripe-pool.ts';
import { stripeCount } from './stripe-scan.ts';

export interface MakeOptions extends ScanOptions {
  /** A raw disk image, a regular file. Filled with zeros to a multiple of 4,096 bytes. */
  readonly file: string;
  /** Directory of the store; made when it does not exist. Several processes may add to it at once. */
  readonly store: string;
  /** Only images whose writer gave no hints are made from files. */
  readonly layout: 'foreign';
  /** zstd level, 1 to 19, or `raw`; default 1. A chunk that compression would make less than 5 % smaller is stored raw. */
  readonly codec?: number | 'raw' | undefined;
  /** Chunks that need not be stored, besides those that the store has. */
  readonly known?: Iterable<ChunkId> | undefined;
  /** What the manifest says of the image; default `raw`, without an architecture or a configuration. */
  readonly facts?: Partial<Omit<ManifestFacts, 'layout'>> | undefined;
  /** Whether packs and manifest are flushed to the disk before the call returns; default true. */
  readonly fsync?: boolean | undefined;
}

export interface MadeImage {
  readonly manifest: Manifest;
  /** Where the manifest is kept in the store. */
  readonly manifestFile: string;
  /** Chunks that were not known before, their plain bytes, and their bytes as stored. */
  readonly newChunks: number;
  readonly newBytes: number;
  readonly storedBytes: number;
  /** Packs added. */
  readonly packs: number;
}

/** Work of a process that died is removed after this time. Milliseconds. */
const STALE_MS = 60 * 60_000;

/**
 * Cuts a disk image into chunks on worker threads, stores those that are new in packs, and makes the manifest. Manifest and
 * the set of stored chunks depend on the bytes alone; how chunks are spread over packs depends on the number of workers.
 * The store gets `packs/<digest of the table>.pack` and `manifests/<image id>`; packs appear in it once all of them are
 * complete, the manifest last. Memory: about 15 MB a worker besides the runtime, and 150 bytes a chunk.
 * @throws CAS_FILE_UNREADABLE (also a store that cannot be written to), CAS_FILE_CHANGED, CAS_PACK_INVALID (a pack in the store), CAS_WORKER_FAILED, LIMIT_EXCEEDED,
 * DISK_FULL; a call that fails leaves nothing behind.
 */
export async function makeFromFile(options: MakeOptions): Promise<MadeImage> {
  const { file, store, layout, codec = 1, known = [], fsync = true, onEvent, signal } = options;
  if (codec !== 'raw' && (!Number.isInteger(codec) || codec < 1 || codec > 19)) {
    throw new RangeError('a zstd level is 1 to 19');
  }
  const facts = {
    format: 'raw',
    architecture: null,
    configDigest: new Uint8Array(32),
    ...options.facts,
    layout,
  } as const;
  const before = await fileFacts(file);
  const hash = await loadNodeHashProvider();
  const builder = createManifestBuilder(facts, hash);
  return stage(onEvent, 'layout', async (report) => {
    await using scope = new Scope();
    try {
      const ids = await knownIds(store, [...known], before.sizeBytes, { hash, signal });
      const directory = await temporaryDirectory(store);
      scope.defer(() => rm(directory, { recursive: true, force: true }));
      const storing = { directory, level: codec === 'raw' ? undefined : codec, fsync, known: ids.memory };
      const pool = scope.use(new StripePool({ ...poolOptions(file, before.sizeBytes, options), storing }));
      const made = { newChunks: 0, newBytes: 0, storedBytes: 0 };
      for await (const result of pool.results()) {
        for (const stretch of stretchesOf(result.entries)) builder.add(stretch);
        made.newChunks += result.newChunks;
        made.newBytes += result.newBytes;
        made.storedBytes += result.storedBytes;
      }
      const packs = await pool.finish();
      await requireUnchanged(file, before);
      const manifest = builder.finish();
      signal?.throwIfAborted();
      const folder = packsFolder(store);
      await mkdir(folder, { recursive: true });
      for (const { path, digest } of packs) await rename(path, join(folder, `${digest}.pack`));
      if (fsync) await flushDirectory(folder);
      const manifestFile = await writeManifest(store, directory, manifest, fsync);
      report({ bytes: manifest.virtualBytes, items: manifest.entryCount });
      return { manifest, manifestFile, ...made, packs: packs.length };
    } catch (error) {
      if (signal?.aborted === true && error === signal.reason) throw error;
      throw error instanceof RangeError ? error : toDecantError(error);
    }
  });
}

/** All chunks of the store and of the caller, with room for those of the image. */
async function knownIds(
  store: string,
  known: readonly ChunkId[],
  sizeBytes: number,
  options: Parameters<typeof openPackDirectory>[1],
): Promise<SharedIdSet> {
  const { rows } = await openPackDirectory(store, options);
  const { minPages } = CUT_RULES.foreign;
  // A chunk has the minimum of pages, or a hole or the end of a stripe follows it.
  const possible = Math.ceil(sizeBytes / (minPages * 4096)) + stripeCount(sizeBytes) + 1;
  const listed = Math.floor(DEFAULT_MANIFEST_LIMITS.maxBytes / MANIFEST_ENTRY_BYTES);
  const ids = new SharedIdSet(rows.length / PACK_ROW_BYTES + known.length + Math.min(possible, listed));
  for (let at = 0; at < rows.length; at += PACK_ROW_BYTES) ids.add(rows, at);
  for (const id of known) ids.add(fromHex(id));
  return ids;
}

/** A directory of this call alone, in the store so that files can be moved; removes those of processes that died. */
async function temporaryDirectory(store: string): Promise<string> {
  const temporary = join(store, 'tmp');
  await mkdir(temporary, { recursive: true }).catch((cause: unknown) => refuse(store, cause));
  for (const name of await readdir(temporary)) {
    const path = join(temporary, name);
    const found = await stat(path).catch(() => undefined);
    if (found !== undefined && Date.now() - found.mtimeMs > STALE_MS) await rm(path, { recursive: true, force: true });
  }
  const directory = join(temporary, `${process.pid}-${randomBytes(8).toString('hex')}`);
  await mkdir(directory).catch((cause: unknown) => refuse(store, cause));
  return directory;
}

/** @throws CAS_FILE_UNREADABLE; DISK_FULL by what is thrown on. */
function refuse(store: string, cause: unknown): never {
  const errno = errnoOf(cause);
  if (errno === undefined || !['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST'].includes(errno)) throw cause;
  throw new DecantError('CAS_FILE_UNREADABLE', `The store ${quote(store)} cannot be written to.`, {
    hint: 'Name a directory that may be written to, or one that does not exist yet.',
    details: { store, errno },
    cause,
  });
}

async function writeManifest(store: string, temporary: string, manifest: Manifest, fsync: boolean): Promise<string> {
  const folder = join(store, 'manifests');
  await mkdir(folder, { recursive: true });
  const name = join(temporary, 'manifest');
  await using file = await open(name, 'wx');
  await file.writeFile(manifest.bytes);
  if (fsync) await file.sync();
  const target = join(folder, imageIdDigits(manifest.id));
  await rename(name, target);
  if (fsync) await flushDirectory(folder);
  return target;
}

async function flushDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r');
  await directory.sync();
}
