import { createHash } from 'node:crypto';
import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createZstdDecompress } from 'node:zlib';

import { errnoOf, isDecantError, MIB, PAGE_BYTES, parseImageId, STAGED, type ImageId } from '@decant/core';
import { writeAt } from '@decant/core/node';

import { repeatedAdmission, type Admission, type IngestContext } from './admission.ts';
import { checkExt4File } from './check-filesystem.ts';
import { admitOptionalConfig } from './config.ts';
import { archiveKey } from './object-keys.ts';
import { refused } from './refuse.ts';
import { restsAs } from './resting-object.ts';

/** What the builder declared when it completed. */
export interface ArchiveCompletion {
  readonly virtualBytes: number;
  readonly layout: 'hinted' | 'foreign';
}

/** Most bytes of a raw image that is admitted as one object. */
const MAX_IMAGE_BYTES = 1024 * 1024 * MIB;
/**
 * A bomb is an upload that takes this many times its size on the disk, beyond an allowance. Real images, whose zeros
 * take none, stay below 20.
 */
const MAX_EXPANSION = 256;
const EXPANSION_ALLOWANCE_BYTES = 256 * MIB;
/** Bytes between two reports of progress. */
const PROGRESS_BYTES = 8 * MIB;

/**
 * Verifies a staged ext4 image and writes it where it will rest. The staged object is read once: what is kept
 * is exactly what was decompressed, hashed and checked.
 * @throws INGEST_REFUSED, ROOTFS_INVALID; nothing has become visible then.
 */
export async function ingestArchive(completion: ArchiveCompletion, context: IngestContext): Promise<Admission> {
  const { store, namespace, scratchDirectory, signal } = context;
  if (completion.virtualBytes > MAX_IMAGE_BYTES) throw refused(`an image has at most ${MAX_IMAGE_BYTES} bytes.`);
  const directory = await mkdtemp(join(scratchDirectory, 'ingest-'));
  try {
    const raw = join(directory, 'rootfs.ext4');
    const kept = join(directory, STAGED.archive);
    const { digest, contentBytes, storedBytes } = await unpack(completion, raw, kept, context);
    const id: ImageId = parseImageId(`sha256:${digest}`);
    const admitted = await context.findAdmitted(id);
    if (admitted === undefined) await checkExt4File(raw, context);
    const config = await admitOptionalConfig(context);
    const configDigest = config?.digest ?? null;
    const key = archiveKey(namespace, id);
    const existing = await store.head(key, { signal });
    // What rests may be damaged. What was just read is not.
    if (existing === undefined || !(await restsAs(store, key, readPieces(kept), signal)))
      await store.put(key, readPieces(kept), { signal });
    // The configuration of an ext4 image belongs to its name, so it may be new where the image is not.
    if (admitted !== undefined) return { ...repeatedAdmission(admitted), configDigest };
    const architecture = config?.config.architecture;
    return {
      id,
      record: {
        id,
        format: 'ext4',
        filesystem: 'ext4',
        layout: completion.layout,
        architecture: architecture === 'amd64' || architecture === 'arm64' ? architecture : null,
        virtualBytes: completion.virtualBytes,
        contentBytes,
        chunks: null,
        storedBytes,
      },
      configDigest,
      repeated: false,
      packs: [],
      counts: {
        chunksTotal: 0,
        chunksNew: 0,
        newBytes: existing === undefined ? completion.virtualBytes : 0,
        storedBytes: existing === undefined ? storedBytes : 0,
      },
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Reads the staged object once: its own bytes go to `kept`, the plain ones, with holes, to `raw`. */
async function unpack(completion: ArchiveCompletion, raw: string, kept: string, context: IngestContext) {
  const { store, stagingPrefix, onProgress, signal } = context;
  const key = `${stagingPrefix}/${STAGED.archive}`;
  const info = await store.head(key, { signal });
  if (info === undefined) throw refused(`${STAGED.archive} was not uploaded.`);
  await using copy = await open(kept, 'wx', 0o600);
  await using image = await open(raw, 'wx', 0o600);
  await image.truncate(completion.virtualBytes);
  const digest = createHash('sha256');
  const plain = { bytes: 0, contentBytes: 0 };
  let storedBytes = 0;
  let reportedBytes = 0;
  try {
    await pipeline(
      async function* () {
        for await (const piece of store.stream(key, { signal })) {
          storedBytes += piece.length;
          if (storedBytes - reportedBytes >= PROGRESS_BYTES || storedBytes === info.sizeBytes) {
            onProgress?.(storedBytes, info.sizeBytes);
            reportedBytes = storedBytes;
          }
          await copy.writeFile(piece);
          yield piece;
        }
      },
      createZstdDecompress(),
      async (pieces: AsyncIterable<Buffer>) => {
        for await (const piece of pieces) {
          if (plain.bytes + piece.length > completion.virtualBytes) {
            throw refused(`the image is larger than the ${completion.virtualBytes} bytes that were declared.`);
          }
          digest.update(piece);
          plain.contentBytes += await writeSparse(image, piece, plain.bytes);
          plain.bytes += piece.length;
          if (plain.contentBytes > EXPANSION_ALLOWANCE_BYTES + MAX_EXPANSION * storedBytes) {
            throw refused(`the image takes more than ${MAX_EXPANSION} times its upload.`);
          }
        }
      },
      ...(signal === undefined ? [] : [{ signal }]),
    );
  } catch (error) {
    signal?.throwIfAborted();
    // What the machine could not do says nothing about the upload.
    if (isDecantError(error) || errnoOf(error) !== undefined) throw error;
    throw refused(`${STAGED.archive} is not a zstd stream.`, {}, error);
  }
  if (plain.bytes !== completion.virtualBytes) {
    throw refused(`the image has ${plain.bytes} bytes, but ${completion.virtualBytes} were declared.`);
  }
  return { digest: digest.digest('hex'), contentBytes: plain.contentBytes, storedBytes };
}

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

/** Writes what is not zero, in pages; returns the bytes written. */
async function writeSparse(file: FileHandle, bytes: Buffer, position: number): Promise<number> {
  let written = 0;
  let runStart = 0;
  const flush = async (end: number) => {
    if (end > runStart) await writeAt(file, bytes.subarray(runStart, end), position + runStart);
    written += end - runStart;
  };
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + PAGE_BYTES - ((position + at) % PAGE_BYTES));
    const page = bytes.subarray(at, end);
    if (page.equals(ZERO_PAGE.subarray(0, page.length))) {
      await flush(at);
      runStart = end;
    }
    at = end;
  }
  await flush(bytes.length);
  return written;
}

async function* readPieces(path: string): AsyncGenerator<Uint8Array> {
  await using file = await open(path, 'r');
  for (;;) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(MIB), 0, MIB, null);
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
  }
}
