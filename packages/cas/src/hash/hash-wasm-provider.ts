import { createBLAKE3, createSHA256, type IHasher } from 'hash-wasm';

import { blake3Scalar, createBlake3Scalar } from './blake3.ts';
import { requireBytes } from './blake3-tree.ts';
import type { Blake3Functions, Blake3Options, IncrementalHash, Sha256Functions } from './hash-provider.ts';
import { createPortablePageHasher } from '../page-hasher.ts';

/**
 * Any number of digests over one WebAssembly instance. The instance holds one state at a time: when another
 * stream takes its turn, the state of the one before is saved (about 2 KB) and comes back at its next turn.
 */
class SharedHasher {
  readonly #hasher: IHasher;
  #active: SharedHash | undefined;

  constructor(hasher: IHasher) {
    this.#hasher = hasher;
  }

  create(): IncrementalHash {
    return new SharedHash(this);
  }

  /** The instance, holding the state of `stream`. */
  enter(stream: SharedHash): IHasher {
    if (this.#active === stream) return this.#hasher;
    if (this.#active !== undefined) this.#active.saved = this.#hasher.save();
    this.#active = stream;
    if (stream.saved === undefined) this.#hasher.init();
    else this.#hasher.load(stream.saved);
    stream.saved = undefined;
    return this.#hasher;
  }

  leave(): void {
    this.#active = undefined;
  }
}

class SharedHash implements IncrementalHash {
  readonly #shared: SharedHasher;
  #done = false;
  saved: Uint8Array | undefined;

  constructor(shared: SharedHasher) {
    this.#shared = shared;
  }

  update(bytes: Uint8Array): void {
    if (this.#done) throw new Error('the digest has been taken');
    requireBytes(bytes);
    this.#shared.enter(this).update(bytes);
  }

  digest(): Uint8Array {
    if (this.#done) throw new Error('the digest has been taken');
    this.#done = true;
    const digest = this.#shared.enter(this).digest('binary');
    this.#shared.leave();
    return digest;
  }
}

/**
 * BLAKE3 by hash-wasm, anywhere WebAssembly runs. The keyed and derive-key modes and other output lengths, which
 * only short inputs use, are plain code.
 */
export async function createHashWasmBlake3(): Promise<Blake3Functions> {
  const [whole, pieces] = await Promise.all([createBLAKE3(), createBLAKE3()]);
  const shared = new SharedHasher(pieces);
  const digest = (data: Uint8Array) => {
    requireBytes(data);
    return whole.init().update(data).digest('binary');
  };
  return {
    blake3: (data, options) => (isPlain(options) ? digest(data) : blake3Scalar(data, options)),
    createBlake3: (options) => (isPlain(options) ? shared.create() : createBlake3Scalar(options)),
    createPageHasher: async () => createPortablePageHasher(digest),
  };
}

function isPlain({ key, context, outputBytes }: Blake3Options = {}): boolean {
  return key === undefined && context === undefined && (outputBytes === undefined || outputBytes === 32);
}

/** SHA-256 by hash-wasm, anywhere WebAssembly runs. */
export async function createHashWasmSha256(): Promise<Sha256Functions> {
  const [whole, pieces] = await Promise.all([createSHA256(), createSHA256()]);
  const shared = new SharedHasher(pieces);
  return {
    sha256: (data) => {
      requireBytes(data);
      return whole.init().update(data).digest('binary');
    },
    createSha256: () => shared.create(),
  };
}
