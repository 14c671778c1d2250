import { createBLAKE3, createSHA256, type IHasher } from 'hash-wasm';

import { blake3DeriveKeyScalar } from './blake3.ts';
import { checkHashProvider, type HashProvider, type IncrementalHash } from './hash-provider.ts';

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

let loaded: Promise<HashProvider> | undefined;

/**
 * The portable provider: hash-wasm, anywhere WebAssembly runs. Compiled and tested once per program.
 * @throws INTERNAL when its self-test fails.
 */
export function loadHashProvider(): Promise<HashProvider> {
  loaded ??= create().catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

async function create(): Promise<HashProvider> {
  const [blake3, sha256, blake3Streams, sha256Streams] = await Promise.all([
    createBLAKE3(),
    createSHA256(),
    createBLAKE3(),
    createSHA256(),
  ]);
  const sharedBlake3 = new SharedHasher(blake3Streams);
  const sharedSha256 = new SharedHasher(sha256Streams);
  const provider: HashProvider = {
    name: 'hash-wasm',
    blake3: (data) => blake3.init().update(data).digest('binary'),
    createBlake3: () => sharedBlake3.create(),
    blake3DeriveKey: blake3DeriveKeyScalar,
    sha256: (data) => sha256.init().update(data).digest('binary'),
    createSha256: () => sharedSha256.create(),
  };
  checkHashProvider(provider);
  return provider;
}
