import { createHash } from 'node:crypto';
import { closeSync, fdatasyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';

import { DecantError, errnoOf, MIB, toDecantError } from '@decant/core';

import type { AuditEvent } from './audit-event.ts';
import { segmentPath } from './audit-files.ts';

/** Bytes of one line; what an event may hold is far below. */
export const MOST_LINE_BYTES = 8192;
const SEGMENT_BYTES = 64 * MIB;
const SEGMENTS = 16;
/** What the last line of a file takes at most: the one that says where the log goes on, or that it ends. */
const LAST_LINE_BYTES = 512;
/** What the first line names as the line before it. */
export const FIRST_LINK = '0'.repeat(64);

export interface AuditLogOptions {
  /** A file that does not exist; made with mode 0600. Further files of the log are beside it. */
  readonly path: string;
  /** Most bytes of one file; default 64 MiB. */
  readonly segmentBytes?: number | undefined;
  /** Most files; default 16. When they are full `append` throws: what a bottle did is never taken out to make room. */
  readonly segments?: number | undefined;
}

/**
 * The audit log of one bottle: lines of JSON, each with its number and the SHA-256 of the line before it (docs/formats/audit-log.md), over one file or
 * several, so that a line that is changed, taken out or put in is noticed; and a last line that seals it, so that its end is, too. A line is with the kernel
 * when `append` returns: the end of this process loses none. After a write that failed nothing is written any more, and the file ends with the last
 * line that was written as a whole.
 */
export class AuditLog implements Disposable {
  readonly #path: string;
  readonly #segmentBytes: number;
  readonly #segments: number;
  #fd: number;
  #segment = 1;
  #bytes = 0;
  #sequence = 0;
  #link = FIRST_LINK;
  #open = true;
  #failure: DecantError | undefined;

  /** @throws CONFLICT when the file exists. */
  constructor({ path, segmentBytes = SEGMENT_BYTES, segments = SEGMENTS }: AuditLogOptions) {
    this.#path = path;
    this.#segmentBytes = segmentBytes;
    this.#segments = segments;
    this.#fd = openNew(path);
  }

  /** SHA-256 of the last line, hexadecimal. */
  get head(): string {
    return this.#link;
  }

  /** @throws LIMIT_EXCEEDED when the log is full or the event too large, DISK_FULL and what else the disk says; then always the same. */
  append(event: AuditEvent): void {
    if (!this.#open) throw new DecantError('USAGE', 'The audit log is closed.');
    if (this.#failure !== undefined) throw this.#failure;
    const size = this.#lineOf(event).length;
    if (size > MOST_LINE_BYTES) {
      throw new DecantError('LIMIT_EXCEEDED', `An audit event has more than ${MOST_LINE_BYTES} bytes.`);
    }
    if (this.#bytes + size + LAST_LINE_BYTES > this.#segmentBytes) this.#continue();
    this.#write(event);
  }

  /** Writes the seal, unless something could not be written before, and closes the file. Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      const full = this.#failure?.code === 'LIMIT_EXCEEDED' ? { reason: 'The log was full.' } : {};
      if (this.#failure === undefined || 'reason' in full)
        this.#write({ time: new Date().toISOString(), type: 'sealed', ...full });
      fdatasyncSync(this.#fd);
    } finally {
      closeSync(this.#fd);
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Goes on in another file. That is there first: a file that says where the log goes on never says it in vain. */
  #continue(): void {
    if (this.#segment >= this.#segments) {
      const bytes = this.#segments * this.#segmentBytes;
      this.#failure = new DecantError('LIMIT_EXCEEDED', `The audit log has reached its ${bytes} bytes.`, {
        hint: 'Nothing passes that is not recorded, so the bottle ends.',
      });
      throw this.#failure;
    }
    try {
      const next = openNew(segmentPath(this.#path, this.#segment + 1));
      try {
        this.#write({ time: new Date().toISOString(), type: 'continued' });
      } catch (error) {
        closeSync(next);
        throw error;
      }
      const full = this.#fd;
      this.#fd = next;
      this.#segment++;
      this.#bytes = 0;
      closeSync(full);
    } catch (error) {
      throw (this.#failure ??= toDecantError(error));
    }
  }

  #lineOf(fields: object): Buffer {
    return Buffer.from(`${JSON.stringify({ seq: this.#sequence, prev: this.#link, ...fields })}\n`, 'utf8');
  }

  #write(fields: object): void {
    const bytes = this.#lineOf(fields);
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(this.#fd, bytes, done);
    } catch (error) {
      this.#failure = toDecantError(error);
      // A part of a line would look as if somebody had cut it.
      ftruncateSync(this.#fd, this.#bytes);
      throw this.#failure;
    }
    this.#bytes += bytes.length;
    this.#sequence++;
    this.#link = linkOf(bytes.subarray(0, -1));
  }
}

function openNew(path: string): number {
  try {
    return openSync(path, 'ax', 0o600);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
    throw new DecantError('CONFLICT', `There is an audit log at ${path} already.`, {
      hint: 'A log is never written on by another bottle: move it away.',
      cause: error,
    });
  }
}

/** SHA-256 of a line without its end. */
export function linkOf(line: Uint8Array): string {
  return createHash('sha256').update(line).digest('hex');
}
