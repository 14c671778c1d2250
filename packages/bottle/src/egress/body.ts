import type { Duplex } from 'node:stream';

import { ChunkedBody } from '../net/chunked-body.ts';
import type { Field } from '../net/http-fields.ts';
import type { ResponseFraming } from './response-head.ts';
import { ConnectionFault, isDeaf, writeAll, type StreamReader } from './stream-reader.ts';

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
    const pieces = await from.readAll(idleTimeMs);
    if (pieces === undefined) {
      // A server that took no more may have been cut off: its end is then none.
      if (left === Infinity && !isDeaf(from.stream)) return;
      throw new ConnectionFault('broken', 'a body ended before its length', from.stream);
    }
    const taken: Buffer[] = [];
    const rest: Buffer[] = [];
    for (const piece of pieces) {
      const mine = piece.length <= left ? piece : piece.subarray(0, left);
      if (mine.length > 0) taken.push(mine);
      if (mine.length < piece.length) rest.push(piece.subarray(mine.length));
      left -= mine.length;
    }
    if (rest.length > 0) from.unread(Buffer.concat(rest));
    onBytes(sizeOf(taken));
    await writeAll(to, taken, idleTimeMs);
  }
}

/** Chunks are taken apart and put together again, so that their extensions end here and nothing is read in two ways. */
async function relayChunked({ from, to, chunksOut, idleTimeMs, onBytes }: BodyRelay): Promise<void> {
  const parser = new ChunkedBody();
  for (;;) {
    const pieces = await from.readAll(idleTimeMs);
    if (pieces === undefined) throw new ConnectionFault('broken', 'a chunked body ended early', from.stream);
    const parts: Uint8Array[] = [];
    let trailers: readonly Field[] | undefined;
    for (const [i, piece] of pieces.entries()) {
      const step = parser.push(piece);
      if (step.type === 'refused') throw new ConnectionFault('invalid', step.reason, from.stream);
      parts.push(...step.data);
      if (!step.done) continue;
      from.unread(Buffer.concat([piece.subarray(step.consumed), ...pieces.slice(i + 1)]));
      ({ trailers } = step);
      break;
    }
    const size = sizeOf(parts);
    onBytes(size);
    const framed = chunksOut && size > 0;
    const out: (Uint8Array | string)[] = framed ? [`${size.toString(16)}\r\n`, ...parts, '\r\n'] : parts;
    if (trailers !== undefined && chunksOut) out.push(`0\r\n${fieldLines(trailers)}\r\n`);
    await writeAll(to, out, idleTimeMs);
    if (trailers !== undefined) return;
  }
}

function sizeOf(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0);
}

export function fieldLines(fields: readonly Field[]): string {
  return fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
}
