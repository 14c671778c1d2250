import { closeSync, fstatSync, openSync, readSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { DecantError, errnoOf, MIB } from '@decant/core';

/*
 * What the agent wrote, in at most two files of a folder: `agent.log`, and before it `agent.log.1`. Both are records:
 *
 *     0        1            7        11
 *     ┌────────┬────────────┬────────┬──────────┐
 *     │ stream │ time       │ length │ bytes    │
 *     └────────┴────────────┴────────┴──────────┘
 *
 * stream  1 standard output (or the terminal), 2 standard error
 * time    milliseconds since 1970, unsigned, big endian
 * length  of the bytes, unsigned, big endian; at most MAX_RECORD_BYTES
 */
const HEADER_BYTES = 11;
const MAX_RECORD_BYTES = 64 * 1024;
/** Most bytes of one of the two files. */
const SEGMENT_BYTES = 8 * MIB;
const NEWLINE = 10;

export interface LogRecord {
  readonly stream: 'stdout' | 'stderr';
  readonly timeMs: number;
  readonly bytes: Buffer;
}

export interface ReadLogOptions {
  /** Begin so many lines before the end, both streams counted together; default: with the oldest that is kept. */
  readonly tailLines?: number | undefined;
  /** Wait for more until the log is closed; default: end where it ends now. */
  readonly follow?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface Segment {
  readonly descriptor: number;
  /** Position in the whole log of its first byte. */
  readonly start: number;
  size: number;
}

/** The bounded log of one agent: the oldest of it goes when there is too much. One process writes; any number read. */
export class AgentLog implements Disposable {
  readonly #directory: string;
  readonly #segmentBytes: number;
  readonly #writable: boolean;
  /** Oldest first; at least one unless it was closed. */
  #segments: Segment[] = [];
  #closed = false;
  #readers = 0;
  #waiting: (() => void)[] = [];

  private constructor(directory: string, writable: boolean, segmentBytes: number) {
    this.#directory = directory;
    this.#writable = writable;
    this.#segmentBytes = segmentBytes;
  }

  /** Begins a log in a folder that has none. `segmentBytes`: most bytes of each of the two files, default 8 MiB. */
  static create(directory: string, { segmentBytes = SEGMENT_BYTES } = {}): AgentLog {
    const log = new AgentLog(directory, true, segmentBytes);
    log.#segments = [{ descriptor: openSync(join(directory, 'agent.log'), 'wx+', 0o600), start: 0, size: 0 }];
    return log;
  }

  /** Opens what an agent that has ended wrote. @throws NOT_FOUND */
  static open(directory: string): AgentLog {
    const log = new AgentLog(directory, false, SEGMENT_BYTES);
    let start = 0;
    for (const name of ['agent.log.1', 'agent.log']) {
      try {
        const descriptor = openSync(join(directory, name), 'r');
        const { size } = fstatSync(descriptor);
        log.#segments.push({ descriptor, start, size });
        start += size;
      } catch (error) {
        if (errnoOf(error) === 'ENOENT' && name === 'agent.log.1') continue;
        log[Symbol.dispose]();
        if (errnoOf(error) !== 'ENOENT') throw error;
        throw new DecantError('NOT_FOUND', 'No output of that bottle is kept.', { cause: error });
      }
    }
    return log;
  }

  append(stream: LogRecord['stream'], bytes: Buffer, timeMs = Date.now()): void {
    if (this.#closed || !this.#writable) return;
    for (let done = 0; done < bytes.length; done += MAX_RECORD_BYTES) {
      this.#appendRecord(stream, bytes.subarray(done, done + MAX_RECORD_BYTES), timeMs);
    }
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #appendRecord(stream: LogRecord['stream'], bytes: Buffer, timeMs: number): void {
    const record = Buffer.alloc(HEADER_BYTES + bytes.length);
    record.writeUInt8(stream === 'stdout' ? 1 : 2, 0);
    record.writeUIntBE(timeMs, 1, 6);
    record.writeUInt32BE(bytes.length, 7);
    bytes.copy(record, HEADER_BYTES);
    let last = this.#segments.at(-1)!;
    if (last.size > 0 && last.size + record.length > this.#segmentBytes) last = this.#rotate(last);
    for (let done = 0; done < record.length;) {
      done += writeSync(last.descriptor, record, done, record.length - done, last.size + done);
    }
    last.size += record.length;
  }

  #rotate(last: Segment): Segment {
    const path = join(this.#directory, 'agent.log');
    try {
      renameSync(path, `${path}.1`);
    } catch (error) {
      // The last time there was no room for another file.
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
    const next = { descriptor: openSync(path, 'wx+', 0o600), start: last.start + last.size, size: 0 };
    if (this.#segments.length > 1) closeSync(this.#segments.shift()!.descriptor);
    this.#segments.push(next);
    return next;
  }

  /** Records from the oldest that is kept; a reader that is slower than the writer misses what went meanwhile. */
  async *read({ tailLines, follow = false, signal }: ReadLogOptions = {}): AsyncGenerator<LogRecord, void> {
    const last = this.#segments.at(-1);
    if (last === undefined) return;
    const end = last.start + last.size;
    this.#readers++;
    try {
      let { position, skipBytes } = this.#startOf(end, tailLines);
      for (;;) {
        signal?.throwIfAborted();
        const record = this.#recordAt(position);
        if (record !== undefined) {
          if (!follow && record.position >= end) return;
          const { stream, timeMs, bytes } = record;
          const skipped = record.position === position ? skipBytes : 0;
          skipBytes = 0;
          position = record.position + HEADER_BYTES + bytes.length;
          if (skipped < bytes.length) yield { stream, timeMs, bytes: bytes.subarray(skipped) };
        } else if (!follow || this.#closed) return;
        else await this.#more(signal);
      }
    } finally {
      this.#readers--;
      this.#release();
    }
  }

  /** Ends what follows the log; the files stay. Idempotent. */
  [Symbol.dispose](): void {
    this.#closed = true;
    for (const wake of this.#waiting.splice(0)) wake();
    this.#release();
  }

  /** Closes the files when nobody reads them any more. */
  #release(): void {
    if (!this.#closed || this.#readers > 0) return;
    for (const { descriptor } of this.#segments.splice(0)) closeSync(descriptor);
  }

  /** Where the last lines before `end` begin: a record, and how many of its bytes belong to lines before them. */
  #startOf(end: number, tailLines: number | undefined): { position: number; skipBytes: number } {
    const first = { position: this.#segments[0]!.start, skipBytes: 0 };
    if (tailLines === undefined) return first;
    // The newest line starts, each at most: where, in the order they came. A line that ends the log starts no other.
    const starts = [first];
    const next = (position: number) => {
      const record = this.#recordAt(position);
      return record === undefined || record.position >= end ? undefined : record;
    };
    for (let record = next(first.position); record !== undefined;) {
      const after = record.position + HEADER_BYTES + record.bytes.length;
      for (let at = record.bytes.indexOf(NEWLINE); at >= 0; at = record.bytes.indexOf(NEWLINE, at + 1)) {
        const whole = at + 1 === record.bytes.length;
        if (whole && after >= end) break;
        starts.push(whole ? { position: after, skipBytes: 0 } : { position: record.position, skipBytes: at + 1 });
        if (starts.length > tailLines) starts.shift();
      }
      record = next(after);
    }
    return tailLines === 0 ? { position: end, skipBytes: 0 } : starts[0]!;
  }

  /** The record at a position, or the oldest when that one is gone. @throws BOTTLE_PROTOCOL for a broken file */
  #recordAt(wanted: number): (LogRecord & { readonly position: number }) | undefined {
    const [oldest] = this.#segments;
    if (oldest === undefined) return undefined;
    const position = Math.max(wanted, oldest.start);
    const segment = this.#segments.find(({ start, size }) => position >= start && position < start + size);
    if (segment === undefined) return undefined;
    const at = position - segment.start;
    const header = readAt(segment, at, HEADER_BYTES);
    if (header === undefined) return undefined;
    const kind = header.readUInt8(0);
    const lengthBytes = header.readUInt32BE(7);
    if ((kind !== 1 && kind !== 2) || lengthBytes > MAX_RECORD_BYTES) {
      throw new DecantError('BOTTLE_PROTOCOL', `The log of the agent is broken at byte ${at}.`);
    }
    // A record that its writer did not finish before it was killed is none.
    const bytes = readAt(segment, at + HEADER_BYTES, lengthBytes);
    if (bytes === undefined) return undefined;
    return { position, stream: kind === 1 ? 'stdout' : 'stderr', timeMs: header.readUIntBE(1, 6), bytes };
  }

  #more(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      this.#waiting.push(wake);
      signal?.addEventListener('abort', wake, { once: true });
    });
  }
}

function readAt(segment: Segment, at: number, count: number): Buffer | undefined {
  if (at + count > segment.size) return undefined;
  const bytes = Buffer.alloc(count);
  for (let done = 0; done < count;) {
    const got = readSync(segment.descriptor, bytes, done, count - done, at + done);
    if (got === 0) return undefined;
    done += got;
  }
  return bytes;
}
