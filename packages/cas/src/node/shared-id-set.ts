import { DecantError } from '@decant/core';

import { viewOf } from '../bytes/bytes-reader.ts';
import { SECRET_WORDS, secretHash } from '../bytes/id-table.ts';

/*
 * The shared memory, in 32-bit words:
 *
 *     0   1   number of ids that may be added
 *     1   1   ids added
 *     2   1   rows given out
 *     3  34   secret of the places
 *    37   …   places: row number + 1, or 0 for a free one
 *     …   …   rows: 8 words of id each
 */
const LIMIT = 0;
const COUNT = 1;
const ROWS = 2;
const SECRET = 3;
const PLACES = SECRET + SECRET_WORDS;
const ROW_WORDS = 8;
/**
 * A thread that loses the race for a place keeps its row for the next id, so that so many rows may be without an id; and so
 * many threads may add their ids at once when there is room for one.
 */
const MAX_THREADS = 65;

/**
 * 32-byte chunk ids that several threads add to at once; of all who add an id, exactly one is told that it is new.
 * Made once in its full size: 38 to 44 bytes an id, of which the system gives memory for 6 to 12 and for the ids that
 * are there. At most 65 threads.
 */
export class SharedIdSet {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #secret: Uint32Array;
  readonly #mask: number;
  /** Word at which the rows begin. */
  readonly #rows: number;
  /** Word of a row of this thread that no place names. */
  #spare: number | undefined;

  /** A new set that takes at most `limit` ids, up to 64 more when threads add the last ones at once; or the one in `memory`. */
  constructor(source: number | SharedArrayBuffer) {
    if (typeof source === 'number') {
      const words = PLACES + placesFor(source) + (source + 2 * MAX_THREADS) * ROW_WORDS;
      this.memory = new SharedArrayBuffer(words * 4);
    } else {
      this.memory = source;
    }
    this.#words = new Int32Array(this.memory);
    if (typeof source === 'number') {
      this.#words[LIMIT] = source;
      this.#words.set(crypto.getRandomValues(new Int32Array(SECRET_WORDS)), SECRET);
    }
    this.#secret = new Uint32Array(this.memory.slice(SECRET * 4, PLACES * 4));
    const places = placesFor(this.#words[LIMIT]!);
    this.#mask = places - 1;
    this.#rows = PLACES + places;
  }

  get size(): number {
    return Atomics.load(this.#words, COUNT);
  }

  /** Adds the id at `at`; true when it was not there. @throws LIMIT_EXCEEDED when the set is full. */
  add(bytes: Uint8Array, at = 0): boolean {
    const view = viewOf(bytes);
    const words = this.#words;
    for (let place = secretHash(view, at, this.#secret) & this.#mask; ; place = (place + 1) & this.#mask) {
      const found = Atomics.load(words, PLACES + place) || this.#claim(PLACES + place, view, at);
      if (found === 0) return true;
      if (this.#equal(view, at, this.#rows + (found - 1) * ROW_WORDS)) return false;
    }
  }

  /** Puts the id into a free place; returns 0, or what another thread has put there in the meantime. */
  #claim(place: number, view: DataView, at: number): number {
    const words = this.#words;
    if (Atomics.load(words, COUNT) >= words[LIMIT]!) {
      // The last id that fits may be this one, which another thread has added since the place was looked at.
      const taken = Atomics.load(words, place);
      if (taken !== 0) return taken;
      throw new DecantError('LIMIT_EXCEEDED', 'There are more chunks than a manifest may hold.');
    }
    this.#spare ??= this.#rows + Atomics.add(words, ROWS, 1) * ROW_WORDS;
    for (let i = 0; i < ROW_WORDS; i++) words[this.#spare + i] = view.getInt32(at + 4 * i, true);
    // Whoever reads the number of the row sees the id, because reading and writing it are synchronising operations.
    const found = Atomics.compareExchange(words, place, 0, (this.#spare - this.#rows) / ROW_WORDS + 1);
    if (found !== 0) return found;
    this.#spare = undefined;
    Atomics.add(words, COUNT, 1);
    return 0;
  }

  #equal(view: DataView, at: number, row: number): boolean {
    for (let i = 0; i < ROW_WORDS; i++) if (this.#words[row + i] !== view.getInt32(at + 4 * i, true)) return false;
    return true;
  }
}

function placesFor(limit: number): number {
  return 2 ** Math.ceil(Math.log2((limit + MAX_THREADS) * 1.5));
}
