import { Readable, Writable, type Duplex } from 'node:stream';

import { DecantError, toDecantError } from '@decant/core';

import { creditFrame, dataFrame, FrameReader, MAX_DATA_BYTES, messageFrame, type Frame } from './frames.ts';

/** Bytes of a stream that may be under way before the reader has taken any. */
const WINDOW_BYTES = 256 * 1024;
/** Credit is given back in pieces of this size. */
const GRANT_BYTES = WINDOW_BYTES / 4;

/** Numbers of the streams of a call, as file descriptors have them. */
export const STREAM = { stdin: 0, stdout: 1, stderr: 2 } as const;
export type StreamNumber = (typeof STREAM)[keyof typeof STREAM];

export interface ChannelEvents {
  /** A message of the other side, not checked yet. */
  onMessage(value: unknown): void;
  /** Once: the other side is gone (`undefined`) or broke the protocol, or the connection failed. */
  onClose(error: unknown): void;
}

/**
 * Messages and up to three streams in each direction over one connection. A stream moves only as far as its reader gave
 * credit, so that one that is not read neither fills memory nor holds up the others.
 */
export class Channel {
  readonly #socket: Duplex;
  readonly #reader = new FrameReader();
  readonly #incoming = new Map<number, IncomingStream>();
  readonly #outgoing = new Map<number, OutgoingStream>();
  readonly #events: ChannelEvents;
  #closed = false;

  constructor(socket: Duplex, events: ChannelEvents) {
    this.#socket = socket;
    this.#events = events;
    socket.on('data', (bytes: Buffer) => {
      if (this.#closed) return;
      try {
        for (const frame of this.#reader.push(bytes)) this.#take(frame);
      } catch (error) {
        this.destroy(error);
      }
    });
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy());
    socket.on('end', () => {
      if (!this.#reader.complete) {
        this.destroy(new DecantError('BOTTLE_PROTOCOL', 'The connection ended within a frame.'));
      } else this.destroy();
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sends a message; nothing happens when the channel is closed. @throws LIMIT_EXCEEDED when it is too long */
  send(value: unknown): void {
    if (!this.#closed) this.#socket.write(messageFrame(value));
  }

  /** The stream of that number that the other side writes. Ask for it before it can begin. */
  incoming(stream: StreamNumber): Readable {
    const made = new IncomingStream((bytes) => {
      if (!this.#closed) this.#socket.write(creditFrame(stream, bytes));
    });
    this.#incoming.set(stream, made);
    if (this.#closed) made.destroy();
    return made;
  }

  /** The stream of that number that this side writes. */
  outgoing(stream: StreamNumber): Writable {
    const made = new OutgoingStream((bytes) => {
      if (!this.#closed) this.#socket.write(dataFrame(stream, bytes));
    });
    // Whoever writes to a client that left learns it from the close of the channel.
    made.on('error', () => undefined);
    this.#outgoing.set(stream, made);
    if (this.#closed) made.destroy();
    return made;
  }

  /** Sends what is still to be sent, and closes. Idempotent. */
  end(): void {
    if (this.#closed) return;
    this.#socket.end();
    this.#finish(undefined);
  }

  /** Closes at once. Idempotent. */
  destroy(error?: unknown): void {
    if (this.#closed) return;
    this.#socket.destroy();
    this.#finish(error);
  }

  #finish(error: unknown): void {
    this.#closed = true;
    for (const stream of this.#incoming.values()) stream.cut();
    for (const stream of this.#outgoing.values()) stream.destroy();
    this.#events.onClose(error);
  }

  #take(frame: Frame): void {
    if (this.#closed) return;
    if (frame.kind === 'message') {
      this.#events.onMessage(frame.value);
      return;
    }
    if (frame.kind === 'credit') {
      const stream = this.#outgoing.get(frame.stream);
      if (stream === undefined) throw unknownStream(frame.stream);
      stream.grant(frame.bytes);
      return;
    }
    const stream = this.#incoming.get(frame.stream);
    if (stream === undefined) throw unknownStream(frame.stream);
    stream.accept(frame.bytes);
  }
}

function unknownStream(stream: number): DecantError {
  return new DecantError('BOTTLE_PROTOCOL', `There is no stream ${stream} in this call.`);
}

class IncomingStream extends Readable {
  readonly #grant: (bytes: number) => void;
  #queue: Buffer[] = [];
  #wanted = false;
  #ended = false;
  /** Bytes the other side may still send. */
  #window = WINDOW_BYTES;
  /** Bytes that were read and not given back as credit yet. */
  #owed = 0;

  constructor(grant: (bytes: number) => void) {
    super({ highWaterMark: 16 * 1024 });
    this.#grant = grant;
  }

  /** @throws BOTTLE_PROTOCOL when the other side sends more than it was let, or after the end. */
  accept(bytes: Buffer): void {
    if (this.#ended) throw new DecantError('BOTTLE_PROTOCOL', 'A stream went on after its end.');
    if (bytes.length === 0) this.#ended = true;
    this.#window -= bytes.length;
    if (this.#window < 0) throw new DecantError('BOTTLE_PROTOCOL', 'More of a stream was sent than there was credit.');
    if (this.destroyed) this.#give(bytes.length);
    else {
      this.#queue.push(bytes);
      this.#flow();
    }
  }

  /** The connection is gone: what came is still read, and then the stream ends. */
  cut(): void {
    if (this.#ended || this.destroyed) return;
    this.#ended = true;
    this.#queue.push(Buffer.alloc(0));
    this.#flow();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    // Nobody reads on: what comes is thrown away, and the other side may finish.
    const left = this.#queue.reduce((sum, { length }) => sum + length, 0);
    this.#queue = [];
    this.#give(left);
    done(error);
  }

  override _read(): void {
    this.#wanted = true;
    this.#flow();
  }

  #flow(): void {
    while (this.#wanted && this.#queue.length > 0) {
      const bytes = this.#queue.shift()!;
      if (bytes.length === 0) {
        this.push(null);
        return;
      }
      this.#wanted = this.push(bytes);
      this.#give(bytes.length);
    }
  }

  #give(bytes: number): void {
    this.#owed += bytes;
    if (this.#owed < GRANT_BYTES || this.#ended) return;
    this.#window += this.#owed;
    this.#grant(this.#owed);
    this.#owed = 0;
  }
}

class OutgoingStream extends Writable {
  readonly #transmit: (bytes: Uint8Array) => void;
  #credit = WINDOW_BYTES;
  #pending: Uint8Array = new Uint8Array(0);
  #done: ((error?: Error) => void) | undefined;

  constructor(send: (bytes: Uint8Array) => void) {
    super({ highWaterMark: 64 * 1024 });
    this.#transmit = send;
  }

  /** @throws BOTTLE_PROTOCOL for more than the window, which would let the other side fill this one's memory. */
  grant(bytes: number): void {
    this.#credit += bytes;
    if (this.#credit > WINDOW_BYTES) throw new DecantError('BOTTLE_PROTOCOL', 'A stream got more credit than it used.');
    this.#flow();
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    this.#pending = bytes;
    this.#done = done;
    this.#flow();
  }

  override _final(done: (error?: Error) => void): void {
    this.#transmit(new Uint8Array(0));
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const waiting = this.#done;
    this.#done = undefined;
    waiting?.(error ?? toDecantError(new Error('the connection is closed')));
    done(error);
  }

  #flow(): void {
    while (this.#pending.length > 0 && this.#credit > 0) {
      const count = Math.min(this.#pending.length, this.#credit, MAX_DATA_BYTES);
      this.#transmit(this.#pending.subarray(0, count));
      this.#pending = this.#pending.subarray(count);
      this.#credit -= count;
    }
    if (this.#pending.length > 0 || this.#done === undefined) return;
    const done = this.#done;
    this.#done = undefined;
    done();
  }
}
