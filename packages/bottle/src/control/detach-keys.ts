import { Transform } from 'node:stream';

const CTRL_P = 0x10;
const CTRL_Q = 0x11;

/**
 * Passes on what is typed until ctrl-p ctrl-q, which are taken away; then it calls `onDetach` and ends. A ctrl-p alone
 * waits for the key after it and is passed on with that one.
 */
export class DetachKeys extends Transform {
  readonly #onDetach: () => void;
  #held = false;

  constructor(onDetach: () => void) {
    super();
    this.#onDetach = onDetach;
  }

  override _transform(bytes: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const passed: number[] = [];
    for (const byte of bytes) {
      if (this.#held && byte === CTRL_Q) {
        this.push(Buffer.from(passed));
        this.push(null);
        this.#held = false;
        this.#onDetach();
        return;
      }
      if (this.#held) passed.push(CTRL_P);
      this.#held = byte === CTRL_P;
      if (!this.#held) passed.push(byte);
    }
    if (passed.length > 0) this.push(Buffer.from(passed));
    done();
  }

  override _flush(done: () => void): void {
    if (this.#held) this.push(Buffer.of(CTRL_P));
    done();
  }
}
