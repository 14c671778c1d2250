import { DecantError } from '@decant/core';

/*
 * One frame of the control socket:
 *
 *     0        4      5
 *     ┌────────┬──────┬─────────────────────────────┐
 *     │ length │ kind │ payload, `length` - 1 bytes │
 *     └────────┴──────┴─────────────────────────────┘
 *
 * length  unsigned, big endian: bytes that follow it
 * kind 1  message: one JSON document in UTF-8
 * kind 2  data: the number of a stream, then its bytes; no bytes: the stream has ended
 * kind 3  credit: the number of a stream, then how many more bytes of it may be sent, unsigned, big endian
 */
export const CONTROL_VERSION = 1;

/** Most bytes of one message. */
export const MAX_MESSAGE_BYTES = 1024 * 1024;
/** Most bytes of one piece of a stream. */
export const MAX_DATA_BYTES = 32 * 1024;

const KIND = { message: 1, data: 2, credit: 3 } as const;
const HEADER_BYTES = 5;

export type Frame =
  | { readonly kind: 'message'; readonly value: unknown }
  | { readonly kind: 'data'; readonly stream: number; readonly bytes: Buffer }
  | { readonly kind: 'credit'; readonly stream: number; readonly bytes: number };

/** @throws LIMIT_EXCEEDED for a message that is too long to send. */
export function messageFrame(value: unknown): Buffer {
  const payload = Buffer.from(JSON.stringify(value), 'utf8');
  if (payload.length > MAX_MESSAGE_BYTES) {
    throw new DecantError('LIMIT_EXCEEDED', `A message to a bottle has more than ${MAX_MESSAGE_BYTES} bytes.`, {
      details: { limit: MAX_MESSAGE_BYTES, bytes: payload.length },
    });
  }
  return Buffer.concat([header(KIND.message, payload.length), payload]);
}

/** `bytes` holds at most MAX_DATA_BYTES; none of them end the stream. */
export function dataFrame(stream: number, bytes: Uint8Array): Buffer {
  return Buffer.concat([header(KIND.data, 1 + bytes.length), Buffer.of(stream), bytes]);
}

export function creditFrame(stream: number, bytes: number): Buffer {
  const payload = Buffer.alloc(5);
  payload.writeUInt8(stream, 0);
  payload.writeUInt32BE(bytes, 1);
  return Buffer.concat([header(KIND.credit, payload.length), payload]);
}

function header(kind: number, payloadBytes: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.writeUInt32BE(1 + payloadBytes, 0);
  bytes.writeUInt8(kind, 4);
  return bytes;
}

/** Takes bytes as they come and gives frames. The length of a frame is checked before any of it is kept. */
export class FrameReader {
  #pieces: Buffer[] = [];
  #held = 0;
  /** Bytes before those held, for messages. */
  #offset = 0;

  /** @throws BOTTLE_PROTOCOL naming the byte offset of the frame at fault; the reader is of no use after that. */
  push(bytes: Buffer): Frame[] {
    this.#pieces.push(bytes);
    this.#held += bytes.length;
    const frames: Frame[] = [];
    for (let frame = this.#next(); frame !== undefined; frame = this.#next()) frames.push(frame);
    return frames;
  }

  /** Whether the bytes so far end with a whole frame. */
  get complete(): boolean {
    return this.#held === 0;
  }

  #next(): Frame | undefined {
    if (this.#held < HEADER_BYTES) return undefined;
    const head = this.#peek(HEADER_BYTES);
    const length = head.readUInt32BE(0);
    const kind = head.readUInt8(4);
    this.#check(kind, length);
    if (this.#held < 4 + length) return undefined;
    const payload = this.#take(4 + length).subarray(HEADER_BYTES);
    const frame = this.#parse(kind, payload);
    this.#offset += 4 + length;
    return frame;
  }

  #check(kind: number, length: number): void {
    const [least, most] =
      kind === KIND.message
        ? [3, 1 + MAX_MESSAGE_BYTES]
        : kind === KIND.data
          ? [2, 2 + MAX_DATA_BYTES]
          : kind === KIND.credit
            ? [6, 6]
            : [0, -1];
    if (most < 0) throw this.#broken(`has the unknown kind ${kind}`);
    if (length < least || length > most) throw this.#broken(`of kind ${kind} has the length ${length}`);
  }

  #parse(kind: number, payload: Buffer): Frame {
    if (kind === KIND.message) {
      try {
        return { kind: 'message', value: JSON.parse(payload.toString('utf8')) as unknown };
      } catch (error) {
        throw this.#broken('holds no JSON', error);
      }
    }
    const stream = payload.readUInt8(0);
    if (kind === KIND.data) return { kind: 'data', stream, bytes: payload.subarray(1) };
    return { kind: 'credit', stream, bytes: payload.readUInt32BE(1) };
  }

  #broken(what: string, cause?: unknown): DecantError {
    return new DecantError('BOTTLE_PROTOCOL', `The frame at byte ${this.#offset} ${what}.`, {
      details: { offset: this.#offset },
      cause,
    });
  }

  #peek(count: number): Buffer {
    const [first] = this.#pieces;
    if (first !== undefined && first.length >= count) return first.subarray(0, count);
    this.#pieces = [Buffer.concat(this.#pieces)];
    return this.#pieces[0]!.subarray(0, count);
  }

  #take(count: number): Buffer {
    const taken = this.#peek(count);
    const rest = this.#pieces[0]!.subarray(count);
    if (rest.length === 0) this.#pieces.shift();
    else this.#pieces[0] = rest;
    this.#held -= count;
    return taken;
  }
}
