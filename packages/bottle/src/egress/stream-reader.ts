import type { Duplex } from 'node:stream';

/** Bytes that are read ahead of whoever consumes them; after that the sender is made to wait. */
const HIGH_WATER = 256 * 1024;
/** A piece of this size is part of a stream, not a message. */
const BULK_BYTES = 8 * 1024;

/** Why a connection cannot go on. Never holds what was sent on it. */
export class ConnectionFault extends Error {
  readonly kind: 'idle' | 'slow' | 'broken' | 'invalid';
  /** The side that is at fault. */
  readonly stream: Duplex;
  constructor(kind: ConnectionFault['kind'], message: string, stream: Duplex) {
    super(message);
    this.kind = kind;
    this.stream = stream;
  }
}

/** Reads a stream piece by piece, each within a time, with a bound on what waits. One reader at a time. */
export class StreamReader {
  readonly stream: Duplex;
  readonly #queue: Buffer[] = [];
  #queued = 0;
  #ended = false;
  #fault: ConnectionFault | undefined;
  readonly #waiters = new Set<() => void>();

  constructor(stream: Duplex) {
    this.stream = stream;
    stream.on('data', this.#onData);
    stream.on('end', this.#onEnd);
    stream.on('error', this.#onError);
    stream.on('close', this.#onClose);
  }

  /** Whether nothing more can come: the stream has ended or broken, or bytes wait that nobody asked for. */
  get unusable(): boolean {
    return this.#ended || this.#fault !== undefined || this.#queued > 0;
  }

  get hasBytes(): boolean {
    return this.#queued > 0;
  }

  /** The next piece; undefined at the end. @throws ConnectionFault */
  async read(timeoutMs: number): Promise<Buffer | undefined> {
    await this.#something(timeoutMs);
    const piece = this.#queue.shift();
    if (piece !== undefined) {
      this.#queued -= piece.length;
      if (this.#queued < HIGH_WATER / 2 && this.stream.isPaused()) this.stream.resume();
      return piece;
    }
    if (this.#fault !== undefined) throw this.#fault;
    return undefined;
  }

  /**
   * All pieces that are there, at least one; undefined at the end. Where much flows, those that are just coming are waited for: TLS gives pieces
   * of 16 KiB, and to pass each on by itself costs three times as much as four together. @throws ConnectionFault
   */
  async readAll(timeoutMs: number): Promise<readonly Buffer[] | undefined> {
    await this.#something(timeoutMs);
    if (this.#queued >= BULK_BYTES && this.#queued < HIGH_WATER) await new Promise((resolve) => setImmediate(resolve));
    if (this.#queue.length === 0) {
      if (this.#fault !== undefined) throw this.#fault;
      return undefined;
    }
    this.#queued = 0;
    if (this.stream.isPaused()) this.stream.resume();
    return this.#queue.splice(0);
  }

  unread(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#queue.unshift(bytes);
    this.#queued += bytes.length;
  }

  /** Gives the stream back, with what was read of it and not taken; this reader ends. */
  detach(): void {
    this.stream.pause();
    this.stream.off('data', this.#onData);
    this.stream.off('end', this.#onEnd);
    this.stream.off('close', this.#onClose);
    // 'error' stays: whoever comes next may not have listened yet.
    const rest = Buffer.concat(this.#queue.splice(0));
    this.#queued = 0;
    if (rest.length > 0) this.stream.unshift(rest);
  }

  /** Waits until there is a piece, the end or a fault. Whoever took a piece first leaves the others waiting. */
  async #something(timeoutMs: number): Promise<void> {
    while (this.#queue.length === 0 && !this.#ended && this.#fault === undefined) {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => {
          this.#waiters.delete(wake);
          reject(new ConnectionFault('slow', 'nothing was sent for too long', this.stream));
        }, timeoutMs);
        const wake = () => {
          clearTimeout(timer);
          resolve();
        };
        this.#waiters.add(wake);
      });
    }
  }

  #wake(): void {
    for (const wake of this.#waiters) wake();
    this.#waiters.clear();
  }

  readonly #onData = (piece: Buffer) => {
    this.#queue.push(piece);
    this.#queued += piece.length;
    if (this.#queued >= HIGH_WATER) this.stream.pause();
    this.#wake();
  };
  readonly #onEnd = () => {
    this.#ended = true;
    this.#wake();
  };
  readonly #onError = () => {
    this.#fault ??= new ConnectionFault('broken', 'the connection broke', this.stream);
    this.#wake();
  };
  readonly #onClose = () => {
    if (!this.#ended) this.#fault ??= new ConnectionFault('broken', 'the connection was closed', this.stream);
    this.#wake();
  };
}

const GONE: ReadonlySet<string | undefined> = new Set(['EPIPE', 'ECONNRESET']);
const deaf = new WeakSet<Duplex>();

type Write = (...args: [...unknown[], (error?: NodeJS.ErrnoException | null) => void]) => void;

/**
 * Lets a stream of Node's `net` or `tls` be read to its end also after a write failed because the peer takes no more. Node gives such a stream up
 * at once, and with it the answer that a server sends before it closes on somebody who is still sending. Writing to it by the functions below is a fault
 * from then on.
 */
export function keepReading(stream: Duplex): void {
  const methods = stream as unknown as Record<'_write' | '_writev', Write>;
  for (const name of ['_write', '_writev'] as const) {
    const write = methods[name].bind(stream);
    methods[name] = (...args) => {
      const done = args.pop() as (error?: NodeJS.ErrnoException | null) => void;
      if (deaf.has(stream)) {
        done();
        return;
      }
      write(...args, (error?: NodeJS.ErrnoException | null) => {
        const isGone = GONE.has(error?.code);
        if (isGone) deaf.add(stream);
        done(isGone ? undefined : error);
      });
    };
  }
}

/** Whether the peer of a stream with {@link keepReading} takes no more; what it sent may still be read. */
export function isDeaf(stream: Duplex): boolean {
  return deaf.has(stream);
}

function requireOpen(stream: Duplex): void {
  if (stream.destroyed || stream.writableEnded || isDeaf(stream))
    throw new ConnectionFault('broken', 'the connection was closed', stream);
}

/** Writes, and waits until the stream takes more. @throws ConnectionFault when it broke or takes nothing for too long. */
export async function writeTo(stream: Duplex, bytes: Uint8Array | string, timeoutMs: number): Promise<void> {
  requireOpen(stream);
  const encoding = typeof bytes === 'string' ? 'latin1' : undefined;
  const more = encoding === undefined ? stream.write(bytes) : stream.write(bytes, encoding);
  if (!more) await drained(stream, timeoutMs);
}

/** Writes pieces as one. @throws ConnectionFault as {@link writeTo} */
export async function writeAll(
  stream: Duplex,
  pieces: readonly (Uint8Array | string)[],
  timeoutMs: number,
): Promise<void> {
  requireOpen(stream);
  stream.cork();
  for (const piece of pieces) {
    if (typeof piece === 'string') stream.write(piece, 'latin1');
    else stream.write(piece);
  }
  stream.uncork();
  if (stream.writableNeedDrain) await drained(stream, timeoutMs);
}

/** Waits until the stream takes more. @throws ConnectionFault */
export function drained(stream: Duplex, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (fault?: ConnectionFault) => {
      clearTimeout(timer);
      stream.off('drain', onDrain);
      stream.off('close', onClose);
      if (fault === undefined) resolve();
      else reject(fault);
    };
    const onDrain = () => settle();
    const onClose = () => settle(new ConnectionFault('broken', 'the connection was closed', stream));
    const timer = setTimeout(
      () => settle(new ConnectionFault('slow', 'nothing was taken for too long', stream)),
      timeoutMs,
    );
    stream.on('drain', onDrain);
    stream.on('close', onClose);
  });
}

const LINGER_MS = 1000;
const LINGER_BYTES = 1024 * 1024;

/**
 * Ends a stream so that what was written arrives: closing while the peer still sends would reset the connection and take the last answer away.
 */
export async function closeGently(reader: StreamReader): Promise<void> {
  const { stream } = reader;
  if (stream.destroyed) return;
  stream.end();
  const deadline = Date.now() + LINGER_MS;
  try {
    for (let bytes = 0; bytes < LINGER_BYTES;) {
      const piece = await reader.read(Math.max(1, deadline - Date.now()));
      if (piece === undefined) break;
      bytes += piece.length;
    }
    if (!stream.writableFinished && !stream.destroyed) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.max(1, deadline - Date.now()));
        stream.once('close', () => {
          clearTimeout(timer);
          resolve();
        });
        stream.once('finish', () => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  } catch (error) {
    if (!(error instanceof ConnectionFault)) throw error;
  } finally {
    stream.destroy();
  }
}
