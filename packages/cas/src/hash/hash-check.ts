import { DecantError, PAGE_BYTES, equalBytes, fromHex } from '@decant/core';

import { blake3Scalar } from './blake3.ts';
import { CUT_RULES, pageHash } from '../chunk/cut-rules.ts';
import type { Blake3Functions, HashProvider, IncrementalHash, Sha256Functions } from './hash-provider.ts';

/** Bytes with the pattern of BLAKE3's published test vectors: 0, 1, … 250, 0, 1, … */
function patternBytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i % 251);
}

const EMPTY = new Uint8Array(0);

/** BLAKE3's published test vectors: the key, the context and some digests. */
const KEY = new TextEncoder().encode('whats the Elvish word for friend');
const CONTEXT = 'BLAKE3 2019-12-27 16:29:52 test vectors context';
const BLAKE3_EMPTY = fromHex('af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262');
const BLAKE3_1024 = fromHex('42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7');
const KEYED_EMPTY = fromHex('92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26');
const DERIVED_EMPTY = fromHex('2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d');

const SHA256_EMPTY = fromHex('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
/** FIPS 180-2, appendix B.1: the message "abc". */
const SHA256_ABC = fromHex('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');

function check(what: string, actual: Uint8Array, expected: Uint8Array): void {
  if (!equalBytes(actual, expected)) throw wrong(what);
}

function wrong(what: string): DecantError {
  return new DecantError('INTERNAL', `A hash provider gives a wrong ${what}.`, {
    hint: 'This machine or its WebAssembly engine computes wrongly; do not use it for images.',
  });
}

/** Feeds the streams in turn, in pieces that are not multiples of a block, and compares their digests. */
function checkStreams(
  what: string,
  streams: readonly { readonly hash: IncrementalHash; readonly data: Uint8Array; readonly expected: Uint8Array }[],
): void {
  const longest = Math.max(...streams.map(({ data }) => data.length));
  for (let at = 0; at < longest; at += 700) {
    for (const { hash, data } of streams) hash.update(data.subarray(at, at + 700));
  }
  for (const { hash, expected } of streams) check(what, hash.digest(), expected);
}

/**
 * Compares with published vectors and with the plain code: every mode, one-shot and in pieces, two streams interleaved,
 * and the page hasher. Takes a few milliseconds. @throws INTERNAL when anything differs.
 */
export async function checkBlake3(functions: Blake3Functions): Promise<void> {
  const long = patternBytes(5 * PAGE_BYTES);
  check('BLAKE3 digest', functions.blake3(EMPTY), BLAKE3_EMPTY);
  check('BLAKE3 digest', functions.blake3(patternBytes(1024)), BLAKE3_1024);
  check('keyed BLAKE3 digest', functions.blake3(EMPTY, { key: KEY }), KEYED_EMPTY);
  check('BLAKE3 derived key', functions.blake3(EMPTY, { context: CONTEXT }), DERIVED_EMPTY);
  for (const length of [1025, 5000, 17_000]) {
    const data = long.subarray(0, length);
    check('BLAKE3 digest', functions.blake3(data), blake3Scalar(data));
    const options = { key: KEY, outputBytes: 150 };
    check('keyed BLAKE3 digest', functions.blake3(data, options), blake3Scalar(data, options));
  }
  checkStreams(
    'BLAKE3 digest of a stream',
    [long.subarray(0, 6000), long.subarray(1)].map((data) => ({
      hash: functions.createBlake3(),
      data,
      expected: blake3Scalar(data),
    })),
  );
  await checkPageHasher(functions, long);
}

/** Four pages of data and one of zeros; the third page is made to end the chunk, and then not to. */
async function checkPageHasher(functions: Blake3Functions, data: Uint8Array): Promise<void> {
  using hasher = await functions.createPageHasher();
  hasher.buffer.set(data.subarray(0, 4 * PAGE_BYTES));
  hasher.buffer.fill(0, 4 * PAGE_BYTES, 5 * PAGE_BYTES);
  const hash = pageHash(new Uint32Array(data.slice(2 * PAGE_BYTES, 3 * PAGE_BYTES).buffer), 0);
  const rules = { ...CUT_RULES.foreign, minPages: 3, cutBelow: hash + 1 };
  const ending = hasher.dataPages(0, 5, 0, rules);
  if (ending.pages !== 3 || !ending.ends) throw wrong('page hash');
  check('digest of pages', hasher.endChunk(0, 3), blake3Scalar(data.subarray(0, 3 * PAGE_BYTES)));
  const first = hasher.dataPages(0, 3, 0, { ...rules, cutBelow: hash });
  const rest = hasher.dataPages(3 * PAGE_BYTES, 2, 3, { ...rules, cutBelow: 0 });
  if (first.pages !== 3 || first.ends || rest.pages !== 1 || rest.ends) throw wrong('page hash or zero test');
  if (hasher.zeroPages(3 * PAGE_BYTES, 2) !== 0 || hasher.zeroPages(4 * PAGE_BYTES, 1) !== 1) throw wrong('zero test');
  // Something else first, so that what an earlier image left behind cannot pass for the result.
  hasher.dataPages(0, 1, 4, rules);
  hasher.plainPages(4 * PAGE_BYTES, 1, 4);
  const pages = new Uint8Array(5 * PAGE_BYTES);
  pages.set(data.subarray(0, 4 * PAGE_BYTES));
  check('digest of pages', hasher.endChunk(0, 5), blake3Scalar(pages));
}

/** Compares with published vectors, and streams with one-shot digests. @throws INTERNAL when anything differs. */
export function checkSha256(functions: Sha256Functions): void {
  check('SHA-256 digest', functions.sha256(EMPTY), SHA256_EMPTY);
  check('SHA-256 digest', functions.sha256(new TextEncoder().encode('abc')), SHA256_ABC);
  const long = patternBytes(5000);
  checkStreams(
    'SHA-256 digest of a stream',
    [long, long.subarray(1)].map((data) => ({
      hash: functions.createSha256(),
      data,
      expected: functions.sha256(data),
    })),
  );
}

/** Both checks, for a provider from elsewhere. @throws INTERNAL when anything differs. */
export async function checkHashProvider(provider: HashProvider): Promise<void> {
  await checkBlake3(provider);
  checkSha256(provider);
}
