import { describe, expect, it } from 'vitest';

import { checkHashProvider } from './hash-check.ts';
import type { Blake3Functions, HashProvider } from './hash-provider.ts';
import { createHashWasmBlake3 } from './hash-wasm-provider.ts';
import { createKernelBlake3 } from '../kernel/kernel-blake3.ts';
import { loadHashProvider, selectBlake3 } from './load-hash-provider.ts';
import { loadNodeHashProvider } from '../node/node-hash-provider.ts';
import type { PageHasher } from '../page-hasher.ts';

const INTERNAL = expect.objectContaining({ code: 'INTERNAL' }) as Error;
const wasm = { name: 'hash-wasm', create: createHashWasmBlake3 };

/** A whole page hasher with one function changed. */
const withPages =
  (from: HashProvider, change: (hasher: PageHasher) => Partial<PageHasher>) => async (): Promise<PageHasher> => {
    const hasher = await from.createPageHasher();
    return { ...hasher, ...change(hasher) };
  };

describe('the hash providers', () => {
  it('use the SIMD kernel here, once per program', async () => {
    const portable = await loadHashProvider();
    const node = await loadNodeHashProvider();
    expect(portable.name).toBe('simd');
    expect(node.name).toBe('simd+node');
    expect(await loadHashProvider()).toBe(portable);
    expect(node.blake3).toBe(portable.blake3);
  });

  it.each([
    ['portable', loadHashProvider],
    ['Node', loadNodeHashProvider],
  ])('refuse more once the digest is taken (%s)', async (_, load) => {
    const hash = await load();
    for (const stream of [hash.createBlake3(), hash.createBlake3({ outputBytes: 7 }), hash.createSha256()]) {
      stream.digest();
      expect(() => stream.update(new Uint8Array(1))).toThrow();
      expect(() => stream.digest()).toThrow();
    }
  });
});

describe('the choice of BLAKE3', () => {
  it('falls back where the kernel cannot be compiled', async () => {
    const create = () => Promise.reject(new Error('no SIMD'));
    expect((await selectBlake3([{ name: 'simd', create }, wasm])).name).toBe('hash-wasm');
  });

  it('falls back where the kernel computes wrongly', async () => {
    const create = async (): Promise<Blake3Functions> => {
      const kernel = await createKernelBlake3();
      return { ...kernel, blake3: (data, options) => kernel.blake3(data, options).fill(0, 31) };
    };
    expect((await selectBlake3([{ name: 'simd', create }, wasm])).name).toBe('hash-wasm');
  });

  it('says why when nothing is left', async () => {
    const create = () => Promise.reject(new Error('no WebAssembly'));
    await expect(selectBlake3([{ name: 'simd', create }])).rejects.toThrow('no WebAssembly');
    await expect(selectBlake3([])).rejects.toThrow(RangeError);
  });
});

describe('the self-test', async () => {
  const hash = await loadHashProvider();
  const wrong = () => new Uint8Array(32);
  const broken: [string, Partial<HashProvider>][] = [
    ['BLAKE3', { blake3: wrong }],
    ['SHA-256', { sha256: wrong }],
    ['keyed BLAKE3', { blake3: (data, options) => (options?.key ? wrong() : hash.blake3(data, options)) }],
    ['derived key', { blake3: (data, options) => (options?.context ? wrong() : hash.blake3(data, options)) }],
    [
      'BLAKE3 of long input',
      { blake3: (data, options) => (data.length > 16e3 ? wrong() : hash.blake3(data, options)) },
    ],
    ['BLAKE3 stream', { createBlake3: () => ({ update: () => undefined, digest: wrong }) }],
    ['SHA-256 stream', { createSha256: () => ({ update: () => undefined, digest: wrong }) }],
    ['digest of pages', { createPageHasher: withPages(hash, () => ({ endChunk: wrong })) }],
    ['zero test', { createPageHasher: withPages(hash, () => ({ zeroPages: () => 0 })) }],
    [
      'page hash',
      {
        createPageHasher: withPages(hash, (hasher) => ({
          dataPages: (at, count, have, rules) => ({ ...hasher.dataPages(at, count, have, rules), ends: true }),
        })),
      },
    ],
    ['hash of pages without a scan', { createPageHasher: withPages(hash, () => ({ plainPages: () => undefined })) }],
  ];

  it('passes every provider', async () => {
    for (const provider of [hash, await loadNodeHashProvider(), { ...hash, ...(await createHashWasmBlake3()) }]) {
      await checkHashProvider(provider);
    }
  });

  it.each(broken)('finds a wrong %s', async (_, part) => {
    await expect(checkHashProvider({ ...hash, ...part })).rejects.toThrow(INTERNAL);
  });

  it('finds streams that share a state', async () => {
    let shared = hash.createBlake3();
    const createBlake3 = () => {
      shared = hash.createBlake3();
      return { update: (bytes: Uint8Array) => shared.update(bytes), digest: () => shared.digest() };
    };
    await expect(checkHashProvider({ ...hash, createBlake3 })).rejects.toThrow();
  });
});
