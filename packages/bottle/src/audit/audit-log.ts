import { createHash } from 'node:crypto';
import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs';

import { DecantError, errnoOf } from '@decant/core';

import type { AuditEvent } from './audit-event.ts';

/** Bytes of one line; what an event may hold is far below. */
export const MOST_LINE_BYTES = 8192;
const MOST_BYTES = 1024 * 1024 * 1024;
/** What the first line names as the line before it. */
export const FIRST_LINK = '0'.repeat(64);

export interface AuditLogOptions {
  /** A file that does not exist; made with mode 0600. */
  readonly path: string;
  /** Most bytes of the file; default 1 GiB. When they are used up, `append` throws. */
  readonly maxBytes?: number | undefined;
}

/**
 * The audit log of one bottle: lines of JSON, each with its number and the SHA-256 of the line before it (docs/formats/audit-log.md), so that
 * a line that is changed, taken out or put in is noticed; and a last line that seals it, so that its end is, too. A line is with the kernel
 * when `append` returns: the end of this process loses none.
 */
export class AuditLog implements Disposable {
  readonly #fd: number;
  readonly #maxBytes: number;
  #bytes = 0;
  #sequence = 0;
  #link = FIRST_LINK;
  #open = true;

  /** @throws CONFLICT when the file exists. */
  constructor({ path, maxBytes = MOST_BYTES }: AuditLogOptions) {
    this.#maxBytes = maxBytes;
    try {
      this.#fd = openSync(path, 'ax', 0o600);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
      throw new DecantError('CONFLICT', `There is an audit log at ${path} already.`, {
        hint: 'A log is never written on by another bottle: move it away.',
        cause: error,
      });
    }
  }

  /** SHA-256 of the last line, hexadecimal. */
  get head(): string {
    return this.#link;
  }

  /** @throws LIMIT_EXCEEDED when the file or the event is too large, DISK_FULL and what else the disk says. */
  append(event: AuditEvent): void {
    this.#write(event);
  }

  /** Writes the seal and closes the file. Idempotent. */
  close(): void {
    if (!this.#open) return;
    try {
      this.#write({ time: new Date().toISOString(), type: 'sealed' });
      fdatasyncSync(this.#fd);
    } finally {
      this.#open = false;
      closeSync(this.#fd);
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #write(fields: object): void {
    if (!this.#open) throw new DecantError('USAGE', 'The audit log is closed.');
    const line = JSON.stringify({ seq: this.#sequence, prev: this.#link, ...fields });
    const bytes = Buffer.from(`${line}\n`, 'utf8');
    if (bytes.length > MOST_LINE_BYTES) {
      throw new DecantError('LIMIT_EXCEEDED', `An audit event has more than ${MOST_LINE_BYTES} bytes.`);
    }
    if (this.#bytes + bytes.length > this.#maxBytes) {
      throw new DecantError('LIMIT_EXCEEDED', `The audit log has reached its ${this.#maxBytes} bytes.`, {
        hint: 'Nothing passes that is not recorded, so the bottle ends; give it a larger log if that is meant.',
      });
    }
    for (let done = 0; done < bytes.length;) done += writeSync(this.#fd, bytes, done);
    this.#bytes += bytes.length;
    this.#sequence++;
    this.#link = linkOf(bytes.subarray(0, -1));
  }
}

/** SHA-256 of a line without its end. */
export function linkOf(line: Uint8Array): string {
  return createHash('sha256').update(line).digest('hex');
}
