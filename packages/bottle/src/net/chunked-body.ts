import { parseFields, type Field } from './http-fields.ts';
import { refused, type Refusal } from './refusal.ts';

/** What is wanted of the sender next. */
type State = 'size' | 'data' | 'data-end' | 'trailers' | 'done';

export interface ChunkedStep {
  readonly type: 'step';
  /** Pieces of the body in the bytes that were given, not copied. */
  readonly data: readonly Uint8Array[];
  /** Bytes that belong to this body; what follows is the next request. Less than what was given only when `done`. */
  readonly consumed: number;
  readonly done: boolean;
  /** Once done. */
  readonly trailers: readonly Field[];
}

/** A size with its extensions, which are read over. */
const MAX_SIZE_LINE = 256;
const MAX_TRAILER_BYTES = 8192;
const SIZE_LINE = /^([0-9a-fA-F]{1,13})(?:[ \t]*;[\t\x20-\x7e]*)?$/;
/** What a trailer may not change afterwards. */
const NOT_IN_TRAILERS: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'transfer-encoding',
  'trailer',
  'authorization',
  'cookie',
  'content-encoding',
  'content-type',
  'te',
  'connection',
]);

/**
 * Reads a chunked body (RFC 9112, 7.1) as it comes. Lines end in CR LF, sizes have at most 13 digits, extensions and trailers are bounded; anything else is
 * refused, after which the connection must be closed.
 */
export class ChunkedBody {
  #state: State = 'size';
  #left = 0;
  #line = '';
  #read = 0;
  #trailerBytes = 0;
  readonly #trailerLines: string[] = [];

  push(bytes: Uint8Array): ChunkedStep | Refusal {
    const data: Uint8Array[] = [];
    let at = 0;
    while (at < bytes.length && this.#state !== 'done') {
      if (this.#state === 'data') {
        const piece = bytes.subarray(at, at + Math.min(this.#left, bytes.length - at));
        data.push(piece);
        at += piece.length;
        this.#left -= piece.length;
        if (this.#left === 0) this.#state = 'data-end';
        continue;
      }
      const fault = this.#byte(bytes[at]!, this.#read + at);
      if (fault !== undefined) return fault;
      at++;
    }
    this.#read += at;
    const done = this.#state === 'done';
    const trailers = done ? parseFields(this.#trailerLines, 0) : [];
    if ('type' in trailers) return trailers;
    const forbidden = trailers.find(([name]) => NOT_IN_TRAILERS.has(name));
    if (forbidden !== undefined) return refused('bad-framing', `A trailer sets ${forbidden[0]}.`, this.#read);
    return { type: 'step', data, consumed: at, done, trailers };
  }

  /** One byte of a line. */
  #byte(byte: number, offset: number): Refusal | undefined {
    const most = this.#state === 'trailers' ? MAX_TRAILER_BYTES : this.#state === 'size' ? MAX_SIZE_LINE : 2;
    if (this.#line.endsWith('\r') ? byte !== 10 : byte === 10)
      return refused('bad-framing', 'A line of a chunked body does not end in CR LF.', offset);
    this.#line += String.fromCharCode(byte);
    if (this.#line.length > most) return refused('bad-framing', 'A line of a chunked body is too long.', offset);
    if (byte !== 10) return undefined;
    const line = this.#line.slice(0, -2);
    this.#line = '';
    return this.#lineEnd(line, offset);
  }

  #lineEnd(line: string, offset: number): Refusal | undefined {
    if (this.#state === 'size') {
      const digits = SIZE_LINE.exec(line)?.[1];
      if (digits === undefined) return refused('bad-framing', 'A chunk has no proper size.', offset);
      this.#left = parseInt(digits, 16);
      this.#state = this.#left === 0 ? 'trailers' : 'data';
      return undefined;
    }
    if (this.#state === 'data-end') {
      if (line !== '') return refused('bad-framing', 'A chunk is longer than its size says.', offset);
      this.#state = 'size';
      return undefined;
    }
    if (line === '') {
      this.#state = 'done';
      return undefined;
    }
    this.#trailerBytes += line.length + 2;
    if (this.#trailerBytes > MAX_TRAILER_BYTES) return refused('bad-framing', 'The trailers are too long.', offset);
    this.#trailerLines.push(line);
    return undefined;
  }
}
