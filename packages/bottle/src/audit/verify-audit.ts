import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';

import { DecantError, errnoOf } from '@decant/core';

import { segmentPath } from './audit-files.ts';
import { FIRST_LINK, linkOf, MOST_LINE_BYTES } from './audit-log.ts';

export interface AuditReport {
  /** Lines of events, without those that continue or seal the log. */
  readonly events: number;
  /** Files of the log. */
  readonly segments: number;
  /** Whether the log was closed in order. One that is not may have lost lines at its end. */
  readonly sealed: boolean;
  /** What the seal says of the end, as that the log was full. */
  readonly reason: string | undefined;
  /** SHA-256 of the last line, to be compared with what was noted elsewhere. */
  readonly head: string;
}

interface Line {
  readonly type?: unknown;
  readonly seq?: unknown;
  readonly prev?: unknown;
  readonly reason?: unknown;
}

/**
 * Checks that every line of an audit log follows the one before it, from its first file to its last, and that nothing follows its seal. Reads line by
 * line, within a bound.
 * @throws AUDIT_INVALID with the number of the first line (from 1, over all files) that does not.
 */
export async function verifyAudit(path: string, signal?: AbortSignal): Promise<AuditReport> {
  let number = 0;
  let events = 0;
  let link = FIRST_LINK;
  let last: Line = {};
  for (let segment = 1; ; segment++) {
    const file = segmentPath(path, segment);
    const inFile = { first: number + 1 };
    try {
      for await (const bytes of linesOf(file, inFile.first, signal)) {
        number++;
        if (last.type === 'sealed') throw broken(number, 'it follows the seal');
        if (last.type === 'continued' && number !== inFile.first)
          throw broken(number, 'the log goes on in another file');
        const line = parsed(bytes);
        if (typeof line === 'string') throw broken(number, line);
        if (line.prev !== link) throw broken(number, 'it does not follow the line before it');
        if (line.seq !== number - 1) throw broken(number, 'its number is not the next one');
        last = line;
        if (line.type !== 'sealed' && line.type !== 'continued') events++;
        link = linkOf(bytes);
      }
    } catch (error) {
      if (segment === 1 || errnoOf(error) !== 'ENOENT') throw error;
      throw broken(number + 1, 'the file that it is in is missing');
    }
    if (last.type === 'continued' && number >= inFile.first) continue;
    await requireLast(segmentPath(path, segment + 1), number + 1);
    const { type, reason } = last;
    const sealed = type === 'sealed';
    return { events, segments: segment, sealed, reason: typeof reason === 'string' ? reason : undefined, head: link };
  }
}

/** A writer that was killed may leave a file into which it had not come to write. */
async function requireLast(next: string, number: number): Promise<void> {
  const bytes = await stat(next).then(
    ({ size }) => size,
    (error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return 0;
      throw error;
    },
  );
  if (bytes > 0) throw broken(number, 'nothing says that the log goes on in its file');
}

function parsed(bytes: Buffer): Line | string {
  let line: unknown;
  try {
    line = JSON.parse(bytes.toString('utf8'));
  } catch {
    return 'it is not JSON';
  }
  return typeof line === 'object' && line !== null ? line : 'it is not an object';
}

async function* linesOf(path: string, first: number, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  let number = first;
  for await (const piece of createReadStream(path, { signal }) as AsyncIterable<Buffer>) {
    rest = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      if (end >= MOST_LINE_BYTES) throw broken(number, 'it is too long');
      yield rest.subarray(0, end);
      number++;
      rest = rest.subarray(end + 1);
    }
    if (rest.length >= MOST_LINE_BYTES) throw broken(number, 'it is too long');
  }
  signal?.throwIfAborted();
  if (rest.length > 0) throw broken(number, 'it does not end');
}

function broken(line: number, how: string): DecantError {
  return new DecantError('AUDIT_INVALID', `Line ${line} of the audit log is not as it was written: ${how}.`, {
    hint: 'Up to the line before it the log is whole.',
    details: { line },
  });
}
