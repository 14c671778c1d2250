import { ConnectionFault, type StreamReader } from './stream-reader.ts';

/** A first byte decides between protocols, and the preface of HTTP/2 is known by its first line: until then every byte counts. */
const EAGER_BYTES = 64;
const STEP_BYTES = 4096;

export interface HeadTimes {
  /** Until the first byte. */
  readonly firstByteMs: number;
  /** From the first byte to the end of the head. */
  readonly headMs: number;
}

/**
 * Collects the first bytes of a message until `parse` finds its head in them. It is not asked for every byte that trickles in, so
 * that a head in single bytes costs no more than its size. Bytes behind the head go back to the reader.
 * Gives undefined when the stream ends before the first byte. @throws ConnectionFault: `idle` without a first byte in time, `slow` or
 * `broken` when it stalls or ends within a head.
 */
export async function readHead<T extends { readonly headBytes: number } | { readonly type: 'refused' }>(
  reader: StreamReader,
  times: HeadTimes,
  most: number,
  parse: (bytes: Buffer) => T | undefined,
): Promise<T | undefined> {
  let buffer: Buffer = Buffer.alloc(0);
  let size = 0;
  let parsedAt = 0;
  let deadline = Date.now() + times.firstByteMs;
  for (;;) {
    const piece = await nextPiece(reader, Math.max(1, deadline - Date.now()), size);
    if (piece === undefined) {
      if (size === 0) return undefined;
      throw new ConnectionFault('broken', 'a head ended early', reader.stream);
    }
    if (size === 0) {
      deadline = Date.now() + times.headMs;
      buffer = piece;
    } else {
      if (size + piece.length > buffer.length) {
        const larger = Buffer.allocUnsafe(Math.max(2 * buffer.length, size + piece.length, 1024));
        buffer.copy(larger, 0, 0, size);
        buffer = larger;
      }
      piece.copy(buffer, size);
    }
    const before = size;
    size += piece.length;
    const bytes = buffer.subarray(0, size);
    const mayEnd = bytes.indexOf('\r\n\r\n', Math.max(0, before - 3)) >= 0;
    if (!mayEnd && size > EAGER_BYTES && size - parsedAt < STEP_BYTES && size < most) continue;
    parsedAt = size;
    const head = parse(bytes);
    if (head === undefined) {
      if (size > most) throw new ConnectionFault('invalid', 'a head is too long', reader.stream);
      continue;
    }
    if ('headBytes' in head) reader.unread(Buffer.from(bytes.subarray(head.headBytes)));
    return head;
  }
}

async function nextPiece(reader: StreamReader, timeoutMs: number, size: number): Promise<Buffer | undefined> {
  try {
    return await reader.read(timeoutMs);
  } catch (error) {
    const idle = size === 0 && error instanceof ConnectionFault && error.kind === 'slow';
    throw idle ? new ConnectionFault('idle', 'nothing came', reader.stream) : error;
  }
}
