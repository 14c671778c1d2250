import { createReadStream } from 'node:fs';

import { DecantError } from '@decant/core';

import { FIRST_LINK, linkOf, MOST_LINE_BYTES } from './audit-log.ts';

export interface AuditReport {
  /** Lines of events, without the seal. */
  readonly events: number;
  /** Whether the log was closed in order. One that is not may have lost lines at its end. */
  readonly sealed: boolean;
  /** SHA-256 of the last line, to be compared with what was noted elsewhere. */
  readonly head: string;
}

/**
 * Checks that every line of an audit log follows the one before it and that nothing follows its seal. Reads line by line, within a bound.
 * @throws AUDIT_INVALID with the number of the first line (from 1) that does not.
 */
export async function verifyAudit(path: string, signal?: AbortSignal): Promise<AuditReport> {
  let number = 0;
  let events = 0;
  let link = FIRST_LINK;
  let sealed = false;
  for await (const line of linesOf(path, signal)) {
    number++;
    if (sealed) throw broken(number, 'it follows the seal');
    const fault = faultOf(line, number - 1, link);
    if (fault !== undefined) throw broken(number, fault);
    sealed = (JSON.parse(line.toString('utf8')) as { type?: unknown }).type === 'sealed';
    if (!sealed) events++;
    link = linkOf(line);
  }
  return { events, sealed, head: link };
}

function faultOf(line: Buffer, sequence: number, link: string): string | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line.toString('utf8'));
  } catch {
    return 'it is not JSON';
  }
  if (typeof parsed !== 'object' || parsed === null) return 'it is not an object';
  const { seq, prev } = parsed as { seq?: unknown; prev?: unknown };
  if (prev !== link) return 'it does not follow the line before it';
  return seq === sequence ? undefined : 'its number is not the next one';
}

async function* linesOf(path: string, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  let number = 1;
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
