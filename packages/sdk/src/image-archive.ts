import { createHash } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createZstdDecompress } from 'node:zlib';

import {
  DecantError,
  isDecantError,
  PAGE_BYTES,
  signedArtifactSchema,
  toDecantError,
  type ImageDetail,
  type OnEvent,
  type Stage,
} from '@decant/core';
import { writeAt } from '@decant/core/node';
import { errorOfResponse, send } from '@decant/transport';

import { imagePath } from './image-names.ts';
import type { Session } from './session.ts';

export interface ReadArchiveOptions {
  /** File that gets the raw image, with holes for zero pages unless `sparse` is false; absent: only verified. */
  readonly file?: string | undefined;
  readonly sparse?: boolean | undefined;
  readonly stage: Stage;
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

const HEADERS_TIMEOUT_MS = 60_000;

/**
 * Reads an ext4 image, which is one object, from its first byte to its last and checks it against its id.
 * A file that was begun and not finished is removed. @throws CAS_CHUNK_MISMATCH when the bytes are not the image's;
 * HTTP_UNREACHABLE when they did not all come.
 */
export async function readArchive(
  session: Session,
  { image }: ImageDetail,
  options: ReadArchiveOptions,
): Promise<{ readonly storedBytes: number }> {
  const { onEvent, signal, file: path, sparse = true } = options;
  const signed = await session.client.json(signedArtifactSchema, 'GET', `${imagePath(image.id)}/archive`, { signal });
  const response = await send(session.fetch, signed.url, {}, { timeoutMs: HEADERS_TIMEOUT_MS, signal });
  if (!response.ok || response.body === null) {
    throw await errorOfResponse(response, { timeoutMs: HEADERS_TIMEOUT_MS, signal });
  }
  const digest = createHash('sha256');
  const file = path === undefined ? undefined : await open(path, 'wx', 0o666);
  let bytes = 0;
  let storedBytes = 0;
  const { body } = response;
  try {
    await pipeline(
      async function* () {
        try {
          for await (const piece of body) {
            storedBytes += piece.length;
            yield piece;
          }
        } catch (error) {
          // What did not arrive says nothing about what the store holds.
          throw isDecantError(error) || isSystemError(error) ? error : cutOff(image.id, error);
        }
      },
      createZstdDecompress(),
      async (pieces: AsyncIterable<Buffer>) => {
        for await (const piece of pieces) {
          if (bytes + piece.length > image.virtualBytes) throw notTheImage(image.id);
          digest.update(piece);
          if (file !== undefined && !(sparse && isZero(piece))) await writeAt(file, piece, bytes);
          bytes += piece.length;
          onEvent?.({ type: 'stage-progress', stage: options.stage, bytes, totalBytes: image.virtualBytes });
        }
      },
      ...(signal === undefined ? [] : [{ signal }]),
    );
    if (bytes !== image.virtualBytes || `sha256:${digest.digest('hex')}` !== image.id) throw notTheImage(image.id);
    await file?.truncate(bytes);
    await file?.sync();
    await file?.close();
    return { storedBytes };
  } catch (error) {
    await file?.close();
    if (path !== undefined) await rm(path, { force: true });
    signal?.throwIfAborted();
    if (isDecantError(error) || isSystemError(error)) throw toDecantError(error);
    throw notTheImage(image.id, error);
  }
}

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

function isZero(piece: Buffer): boolean {
  for (let at = 0; at < piece.length; at += PAGE_BYTES) {
    const page = piece.subarray(at, at + PAGE_BYTES);
    if (!page.equals(ZERO_PAGE.subarray(0, page.length))) return false;
  }
  return true;
}

function isSystemError(error: unknown): boolean {
  return (
    typeof (error as { errno?: unknown }).errno === 'number' && (error as { syscall?: unknown }).syscall !== undefined
  );
}

function cutOff(id: string, cause: unknown): DecantError {
  return new DecantError('HTTP_UNREACHABLE', `The connection was cut while ${id} was read.`, { cause });
}

function notTheImage(id: string, cause?: unknown): DecantError {
  return new DecantError('CAS_CHUNK_MISMATCH', `What the store holds for ${id} is not that image.`, {
    hint: 'The object is damaged: create or import the image again.',
    cause,
  });
}
