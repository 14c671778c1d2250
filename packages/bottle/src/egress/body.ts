import type { Duplex } from 'node:stream';

import { ChunkedBody } from '../net/chunked-body.ts';
import type { Field } from '../net/http-fields.ts';
import type { ResponseFraming } from './response-head.ts';
import { ConnectionFault, drained, writeTo, type StreamReader } from './stream-reader.ts';

export interface BodyRelay {
  readonly from: StreamReader;
  readonly to: Duplex;
  readonly framing: ResponseFraming;
  /** Whether a chunked body goes on in chunks (HTTP/1.1) or bare, ended by the close of the connection. */
  readonly chunksOut: boolean;
  readonly idleTimeMs: number;
  /** Told the bytes of the body as they pass. */
  readonly onBytes: (count: number) => void;
}

/** Passes one body on and ends where it ends; what follows stays in the reader. @throws ConnectionFault */
export async function relayBody(relay: BodyRelay): Promise<void> {
  const { framing } = relay;
  if (framing.type === 'length') await relayLength(relay, framing.bytes);
  else if (framing.type === 'chunked') await relayChunked(relay);
  else if (framing.type === 'until-close') await relayLength(relay, Infinity);
}

async function relayLength({ from, to, idleTimeMs, onBytes }: BodyRelay, bytes: number): Promise<void> {
  for (let left = bytes; left > 0;) {
    const piece = await from.read(idleTimeMs);
    if (piece === undefined) {
      if (left === Infinity) return;
      throw new ConnectionFault('broken', 'a body ended before its length', from.stream);
    }
    const taken = piece.length <= left ? piece : piece.subarray(0, left);
    if (taken.length < piece.length) from.unread(piece.subarray(taken.length));
    left -= taken.length;
    onBytes(taken.length);
    await writeTo(to, taken, idleTimeMs);
  }
}

/** Chunks are taken apart and put together again, so that their extensions end here and nothing is read in two ways. */
async function relayChunked({ from, to, chunksOut, idleTimeMs, onBytes }: BodyRelay): Promise<void> {
  const parser = new ChunkedBody();
  for (;;) {
    const piece = await from.read(idleTimeMs);
    if (piece === undefined) throw new ConnectionFault('broken', 'a chunked body ended early', from.stream);
    const step = parser.push(piece);
    if (step.type === 'refused') throw new ConnectionFault('invalid', step.reason, from.stream);
    const size = step.data.reduce((sum, part) => sum + part.length, 0);
    onBytes(size);
    if (size > 0) await writeParts(to, step.data, size, chunksOut, idleTimeMs);
    if (!step.done) continue;
    if (step.consumed < piece.length) from.unread(piece.subarray(step.consumed));
    if (chunksOut) await writeTo(to, `0\r\n${fieldLines(step.trailers)}\r\n`, idleTimeMs);
    return;
  }
}

async function writeParts(
  to: Duplex,
  parts: readonly Uint8Array[],
  size: number,
  chunksOut: boolean,
  idleTimeMs: number,
): Promise<void> {
  if (to.destroyed || to.writableEnded) throw new ConnectionFault('broken', 'the connection was closed', to);
  to.cork();
  try {
    if (chunksOut) to.write(`${size.toString(16)}\r\n`, 'latin1');
    for (const part of parts) to.write(part);
    if (chunksOut) to.write('\r\n', 'latin1');
  } finally {
    to.uncork();
  }
  if (to.writableNeedDrain) await drained(to, idleTimeMs);
}

export function fieldLines(fields: readonly Field[]): string {
  return fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
}
