import { createHash, hash as hashOnce } from 'node:crypto';

import { checkSha256 } from '../hash/hash-check.ts';
import type { HashProvider, Sha256Functions } from '../hash/hash-provider.ts';
import { loadBlake3, once } from '../hash/load-hash-provider.ts';

const nodeSha256: Sha256Functions = {
  sha256: (data) => new Uint8Array(hashOnce('sha256', data, 'buffer')),
  createSha256: () => {
    const hash = createHash('sha256');
    return {
      update: (bytes) => void hash.update(bytes),
      digest: () => new Uint8Array(hash.digest()),
    };
  },
};

/**
 * The portable provider's BLAKE3, with SHA-256 from node:crypto, which uses the processor's SHA instructions.
 * @throws INTERNAL when a self-test fails.
 */
export const loadNodeHashProvider: () => Promise<HashProvider> = once(async () => {
  const { name, functions } = await loadBlake3();
  checkSha256(nodeSha256);
  return { name: `${name}+node`, ...functions, ...nodeSha256 };
});
