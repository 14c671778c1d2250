import { DecantError } from '@decant/core';

import { viewOf } from '../bytes/bytes-reader.ts';
import { SECRET_WORDS, secretHash } from '../bytes/id-table.ts';

/*
 * The shared memory, in 32-bit words:
 *
 *     0   1   number of ids that may be added
 *     1   1   ids added
 *     2  34   secret of the places
 *    36   …   places: 1 word state (0 free, 1 being written, 2 taken) and 8 words of id each
 */
const LIMIT = 0;
const COUNT = 1;
const SECRET = 2;
const PLACES = SECRET + SECRET_WORDS;
const PLACE_WORDS = 9;
const BUSY = 1;
const TAKEN = 2;
/** Another thread writes an id in nanoseconds, unless it has just lost its processor. Milliseconds. */
const BUSY_WAIT_MS = 1;

/**
 * 32-byte chunk ids that several threads add to at once; of all who add an id, exactly one is told that it is new.
 * 54 to 108 bytes an id, of which the system gives memory only for what is touched. Made once in its full size.
 */
export class SharedIdSet {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #secret: Uint32Array;
  readonly #mask: number;

  /** A new set that takes at most `limit` ids, or the one in `memory`. */
  constructor(source: number | SharedArrayBuffer) {
    if (typeof source === 'number') {
      const places = 2 ** Math.ceil(Math.log2(Math.max(4, source * 1.5)));
      this.memory = new SharedArrayBuffer((PLACES + places * PLACE_WORDS) * 4);
    } else {
      this.memory = source;
    }
    this.#words = new Int32Array(this.memory);
    if (typeof source === 'number') {
      this.#words[LIMIT] = source;
      this.#words.set(crypto.getRandomValues(new Int32Array(SECRET_WORDS)), SECRET);
    }
    this.#secret = new Uint32Array(this.memory.slice(SECRET * 4, PLACES * 4));
    this.#mask = (this.#words.length - PLACES) / PLACE_WORDS - 1;
  }

  get size(): number {
    return Atomics.load(this.#words, COUNT);
  }

  /** Adds the id at `at`; true when it was not there. @throws LIMIT_EXCEEDED when the set is full. */
  add(bytes: Uint8Array, at = 0): boolean {
    const view = viewOf(bytes);
    const words = this.#words;
    for (let place = secretHash(view, at, this.#secret) & this.#mask; ; place = (place + 1) & this.#mask) {
      const base = PLACES + place * PLACE_WORDS;
      let state = Atomics.compareExchange(words, base, 0, BUSY);
      if (state === 0) {
        if (Atomics.add(words, COUNT, 1) >= words[LIMIT]!) {
          Atomics.sub(words, COUNT, 1);
          Atomics.store(words, base, 0);
          throw new DecantError('LIMIT_EXCEEDED', 'There are more chunks than a manifest may hold.');
        }
        for (let i = 0; i < 8; i++) words[base + 1 + i] = view.getInt32(at + 4 * i, true);
        Atomics.store(words, base, TAKEN);
        return true;
      }
      while (state === BUSY) {
        Atomics.wait(words, base, BUSY, BUSY_WAIT_MS);
        state = Atomics.load(words, base);
      }
      if (this.#equal(view, at, base + 1)) return false;
    }
  }

  #equal(view: DataView, at: number, base: number): boolean {
    for (let i = 0; i < 8; i++) if (this.#words[base + i] !== view.getInt32(at + 4 * i, true)) return false;
    return true;
  }
}
