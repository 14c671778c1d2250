import { checkBlake3, checkSha256 } from './hash-check.ts';
import type { Blake3Functions, HashProvider } from './hash-provider.ts';
import { createHashWasmBlake3, createHashWasmSha256 } from './hash-wasm-provider.ts';
import { createKernelBlake3 } from '../kernel/kernel-blake3.ts';

/** An implementation of BLAKE3 that has not been tested yet. */
export interface Blake3Candidate {
  readonly name: string;
  readonly create: () => Promise<Blake3Functions>;
}

/** Best first. */
const BLAKE3_CANDIDATES: readonly Blake3Candidate[] = [
  { name: 'simd', create: createKernelBlake3 },
  { name: 'hash-wasm', create: createHashWasmBlake3 },
];

/**
 * The first implementation that starts and passes its self-test.
 * @throws whatever was wrong with the last one.
 */
export async function selectBlake3(
  candidates: readonly Blake3Candidate[] = BLAKE3_CANDIDATES,
): Promise<{ name: string; functions: Blake3Functions }> {
  let cause: unknown = new RangeError('there is no implementation of BLAKE3 to choose from');
  for (const { name, create } of candidates) {
    try {
      const functions = await create();
      await checkBlake3(functions);
      return { name, functions };
    } catch (error) {
      cause = error;
    }
  }
  throw cause;
}

/** `create`, once per program; again after a failure. */
export function once<T>(create: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () =>
    (made ??= create().catch((error: unknown) => {
      made = undefined;
      throw error;
    }));
}

export const loadBlake3 = once(selectBlake3);

/**
 * The portable provider, anywhere WebAssembly runs: BLAKE3 by the SIMD kernel, or by hash-wasm where SIMD is missing or
 * the kernel's self-test fails; SHA-256 by hash-wasm. Compiled and tested once per program.
 * @throws INTERNAL when a self-test fails.
 */
export const loadHashProvider: () => Promise<HashProvider> = once(async () => {
  const [{ name, functions }, sha256] = await Promise.all([loadBlake3(), createHashWasmSha256()]);
  checkSha256(sha256);
  return { name, ...functions, ...sha256 };
});
