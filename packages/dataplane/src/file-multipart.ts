import { createHash } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, errnoOf, toHex, type ObjectBody, type ObjectInfo, type UploadedPart } from '@decant/core';

import { diskError, type FileWrites, newId, removeFile, writeAll } from './file-writes.ts';
import { unknownUpload } from './object-errors.ts';
import { checkKey } from './object-key.ts';
import { checkPartNumber, fingerprintOf, partChanged, partMissing, sortParts } from './parts.ts';
import { piecesOf } from './pieces.ts';

const DIGEST_BYTES = 32;
const UPLOAD_ID = /^[0-9a-f]{32}$/;
const COPY_BYTES = 4 * 1024 * 1024;

/** Uploads in parts, under `uploads`: what no key shows until it is complete. */
export class FileMultipart {
  readonly #writes: FileWrites;
  readonly #lasting: (key: string) => boolean;
  readonly #completing = new Map<string, Promise<ObjectInfo>>();

  /** `lasting`: whether the object of a key survives a loss of power. */
  constructor(writes: FileWrites, lasting: (key: string) => boolean) {
    this.#writes = writes;
    this.#lasting = lasting;
  }

  async create(key: string): Promise<string> {
    const temp = await this.#writes.writeTemp((file) => writeAll(file, Buffer.from(key, 'utf8')), this.#lasting(key));
    const id = newId();
    try {
      await mkdir(this.#writes.path('uploads', id), { mode: 0o700 });
      await rename(temp, this.#writes.path('uploads', id, 'key'));
    } catch (error) {
      await removeFile(temp);
      throw diskError(error);
    }
    return id;
  }

  async putPart(
    key: string,
    uploadId: string,
    partNumber: number,
    body: ObjectBody,
    signal: AbortSignal | undefined,
  ): Promise<UploadedPart> {
    checkKey(key);
    checkPartNumber(partNumber);
    if (!(await this.#isUpload('uploads', key, uploadId))) throw unknownUpload();
    const hash = createHash('sha256');
    let digest: Buffer | undefined;
    const temp = await this.#writes.writeTemp(async (file) => {
      for await (const piece of piecesOf(body, signal)) {
        hash.update(piece);
        await writeAll(file, piece);
      }
      digest = hash.digest();
      await writeAll(file, digest);
    }, this.#lasting(key));
    try {
      await rename(temp, this.#writes.path('uploads', uploadId, nameOfPart(partNumber)));
    } catch (error) {
      await removeFile(temp);
      throw errnoOf(error) === 'ENOENT' ? unknownUpload() : diskError(error);
    }
    return { partNumber, etag: digest!.toString('hex') };
  }

  /** `to` is where the object goes. A second call while the first is at work gets the first one's answer. */
  complete(key: string, to: string, uploadId: string, parts: readonly UploadedPart[]): Promise<ObjectInfo> {
    const sorted = sortParts(parts);
    const work = `${uploadId} ${fingerprintOf(key, sorted)}`;
    const running = this.#completing.get(work);
    if (running !== undefined) return running;
    const started = this.#complete(key, to, uploadId, sorted).finally(() => this.#completing.delete(work));
    this.#completing.set(work, started);
    return started;
  }

  async #complete(key: string, to: string, uploadId: string, parts: readonly UploadedPart[]): Promise<ObjectInfo> {
    const fingerprint = fingerprintOf(key, parts);
    const before = await this.#answeredBefore(key, uploadId, fingerprint);
    if (before !== undefined) return before;
    if (!(await this.#isUpload('uploads', key, uploadId))) return this.#afterOthers(key, uploadId, fingerprint);
    const upload = this.#writes.path('uploads', uploadId);
    await checkParts(upload, parts);
    // From here on nobody else can add a part or complete: whoever moves the folder has it.
    const joining = this.#writes.path('joining', uploadId);
    try {
      await rename(upload, joining);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      return await this.#afterOthers(key, uploadId, fingerprint);
    }
    try {
      await checkParts(joining, parts);
    } catch (error) {
      await rename(joining, upload);
      throw error;
    }
    // Past this point a failure loses the upload: the client sends it again.
    try {
      const lasting = this.#lasting(key);
      const sizeBytes = await this.#join(joining, parts, lasting);
      await this.#writes.publish(join(joining, nameOfPart(parts[0]!.partNumber)), to, lasting);
      await this.#remember(uploadId, fingerprint, sizeBytes, lasting);
      return { key, sizeBytes };
    } finally {
      await rm(joining, { recursive: true, force: true });
    }
  }

  /**
   * Appends every part to the first and removes it, so that joining needs the space of one part, not of all.
   * Returns the size of the whole.
   */
  async #join(folder: string, parts: readonly UploadedPart[], lasting: boolean): Promise<number> {
    const [first, ...rest] = parts.map(({ partNumber }) => join(folder, nameOfPart(partNumber)));
    const target = await open(first!, 'r+');
    try {
      let size = (await target.stat()).size - DIGEST_BYTES;
      await target.truncate(size);
      for (const path of rest) {
        size = await append(target, size, path);
        await removeFile(path);
      }
      if (lasting) await this.#writes.syncFile(target);
      return size;
    } catch (error) {
      throw diskError(error);
    } finally {
      await target.close();
    }
  }

  async abort(key: string, uploadId: string): Promise<void> {
    if (!(await this.#isUpload('uploads', key, uploadId))) return;
    // Moved away first: parts on their way in then fail, instead of filling a folder that is being removed.
    const grave = this.#writes.path('temp', newId());
    try {
      await rename(this.#writes.path('uploads', uploadId), grave);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw error;
    }
    await rm(grave, { recursive: true, force: true });
  }

  /** Whether there is such an upload, and it is for this key. */
  async #isUpload(area: 'uploads' | 'joining', key: string, uploadId: string): Promise<boolean> {
    if (!UPLOAD_ID.test(uploadId)) return false;
    return (await readFile(this.#writes.path(area, uploadId, 'key'), 'utf8').catch(absent)) === key;
  }

  /** What to say when the upload was gone before this call could take it. */
  async #afterOthers(key: string, uploadId: string, fingerprint: string): Promise<ObjectInfo> {
    if (await this.#isUpload('joining', key, uploadId)) {
      throw new DecantError('CONFLICT', 'The upload is being completed by another request.', {
        hint: 'Ask again in a moment.',
        retryable: true,
      });
    }
    const answered = await this.#answeredBefore(key, uploadId, fingerprint);
    if (answered === undefined) throw unknownUpload();
    return answered;
  }

  async #remember(uploadId: string, fingerprint: string, sizeBytes: number, lasting: boolean): Promise<void> {
    const text = JSON.stringify({ fingerprint, sizeBytes });
    try {
      const temp = await this.#writes.writeTemp((file) => writeAll(file, Buffer.from(text)), lasting);
      await rename(temp, this.#writes.path('completed', uploadId));
    } catch {
      // The object is there; only a client that asks a second time would have profited.
    }
  }

  /** The answer to the same completion, when it was given within a day: the client may not have received it. */
  async #answeredBefore(key: string, uploadId: string, fingerprint: string): Promise<ObjectInfo | undefined> {
    if (!UPLOAD_ID.test(uploadId)) return undefined;
    const text = await readFile(this.#writes.path('completed', uploadId), 'utf8').catch(absent);
    if (text === undefined) return undefined;
    const known = JSON.parse(text) as { fingerprint: string; sizeBytes: number };
    return known.fingerprint === fingerprint ? { key, sizeBytes: known.sizeBytes } : undefined;
  }
}

function nameOfPart(partNumber: number): string {
  return String(partNumber).padStart(5, '0');
}

function absent(error: unknown): undefined {
  if (errnoOf(error) !== 'ENOENT') throw error;
  return undefined;
}

async function checkParts(folder: string, parts: readonly UploadedPart[]): Promise<void> {
  const digest = new Uint8Array(DIGEST_BYTES);
  for (const { partNumber, etag } of parts) {
    const file = await open(join(folder, nameOfPart(partNumber)), 'r').catch(absent);
    if (file === undefined) throw partMissing(partNumber);
    try {
      const { size } = await file.stat();
      await file.read(digest, 0, DIGEST_BYTES, size - DIGEST_BYTES);
    } finally {
      await file.close();
    }
    if (toHex(digest) !== etag) throw partChanged(partNumber);
  }
}

/** Copies a part without its digest to the end of the target; returns the new size. */
async function append(target: FileHandle, size: number, path: string): Promise<number> {
  const part = await open(path, 'r');
  try {
    const length = (await part.stat()).size - DIGEST_BYTES;
    const buffer = new Uint8Array(Math.min(COPY_BYTES, length));
    for (let at = 0; at < length;) {
      const { bytesRead } = await part.read(buffer, 0, Math.min(buffer.length, length - at), at);
      if (bytesRead === 0) throw new DecantError('INTERNAL', 'A part became shorter while it was joined.');
      for (let done = 0; done < bytesRead;) {
        const { bytesWritten } = await target.write(buffer, done, bytesRead - done, size + at + done);
        done += bytesWritten;
      }
      at += bytesRead;
    }
    return size + length;
  } finally {
    await part.close();
  }
}
