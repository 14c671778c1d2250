import type { Socket } from 'node:net';

/** Reads a socket by exact lengths. It takes no more from the socket than it is asked for, plus one buffer. */
export class SocketReader {
  readonly #socket: Socket;
  #held: Buffer = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #over = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    const wake = () => this.#wake?.();
    const over = () => {
      this.#over = true;
      wake();
    };
    socket.on('readable', wake);
    socket.on('end', over);
    socket.on('error', over);
    socket.on('close', over);
  }

  /** The next `length` bytes (at most 64 KiB), or undefined when the other side ended before them. */
  async exactly(length: number): Promise<Buffer | undefined> {
    while (this.#held.length < length) {
      if (!(await this.#more())) return undefined;
    }
    const bytes = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return bytes;
  }

  /** Reads `length` bytes and forgets them; false when the other side ended before. */
  async skip(length: number): Promise<boolean> {
    let left = length;
    for (;;) {
      const taken = Math.min(left, this.#held.length);
      this.#held = this.#held.subarray(taken);
      left -= taken;
      if (left === 0) return true;
      if (!(await this.#more())) return false;
    }
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const bytes = this.#socket.read() as Buffer | null;
      if (bytes !== null) {
        this.#held = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes]);
        return true;
      }
      if (this.#over) return false;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
