import { createHash, hash as hashOnce } from 'node:crypto';

import { checkHashProvider, type HashProvider } from '../hash-provider.ts';
import { loadHashProvider } from '../hash-wasm-provider.ts';

let loaded: Promise<HashProvider> | undefined;

/**
 * {@link loadHashProvider} with SHA-256 from node:crypto, which uses the processor's SHA instructions.
 * @throws INTERNAL when its self-test fails.
 */
export function loadNodeHashProvider(): Promise<HashProvider> {
  loaded ??= create().catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

async function create(): Promise<HashProvider> {
  const portable = await loadHashProvider();
  const provider: HashProvider = {
    ...portable,
    name: `${portable.name}+node`,
    sha256: (data) => new Uint8Array(hashOnce('sha256', data, 'buffer')),
    createSha256: () => {
      const hash = createHash('sha256');
      return {
        update: (bytes) => void hash.update(bytes),
        digest: () => new Uint8Array(hash.digest()),
      };
    },
  };
  checkHashProvider(provider);
  return provider;
}
