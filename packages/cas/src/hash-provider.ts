import { DecantError, equalBytes, fromHex } from '@decant/core';

import { blake3Scalar } from './blake3.ts';

/** A digest over bytes that arrive in pieces. Any number of them may be under way at once. */
export interface IncrementalHash {
  update(bytes: Uint8Array): void;
  /** The 32-byte digest; nothing may be called afterwards (it throws). */
  digest(): Uint8Array;
}

/** Where digests come from. Every provider gives the same digests; they differ in speed. All digests are 32 bytes. */
export interface HashProvider {
  readonly name: string;
  blake3(data: Uint8Array): Uint8Array;
  createBlake3(): IncrementalHash;
  /** BLAKE3's derive-key mode, for short inputs. `context` is a constant of the program, never input. */
  blake3DeriveKey(context: string, data: Uint8Array): Uint8Array;
  sha256(data: Uint8Array): Uint8Array;
  createSha256(): IncrementalHash;
}

/** Bytes with the pattern of BLAKE3's published test vectors: 0, 1, … 250, 0, 1, … */
function patternBytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i % 251);
}

const BLAKE3_EMPTY = fromHex('af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262');
const BLAKE3_1024 = fromHex('42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7');
const SHA256_EMPTY = fromHex('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
/** FIPS 180-2, appendix B.1: the message "abc". */
const SHA256_ABC = fromHex('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
/** BLAKE3 test vectors: derive-key mode with an empty input. */
const DERIVE_EMPTY = fromHex('2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d');

/**
 * Compares a provider with published vectors and the reference code, one-shot, in pieces and with two streams
 * interleaved. Takes about a millisecond. @throws INTERNAL when any digest differs.
 */
export function checkHashProvider(provider: HashProvider): void {
  const long = patternBytes(5000);
  const check = (what: string, actual: Uint8Array, expected: Uint8Array) => {
    if (equalBytes(actual, expected)) return;
    throw new DecantError('INTERNAL', `The hash provider ${provider.name} gives a wrong ${what} digest.`, {
      hint: 'This machine or its WebAssembly engine computes wrongly; do not use it for images.',
    });
  };
  check('BLAKE3', provider.blake3(new Uint8Array(0)), BLAKE3_EMPTY);
  check('BLAKE3', provider.blake3(patternBytes(1024)), BLAKE3_1024);
  check('BLAKE3', provider.blake3(long), blake3Scalar(long));
  check('SHA-256', provider.sha256(new Uint8Array(0)), SHA256_EMPTY);
  check('SHA-256', provider.sha256(new TextEncoder().encode('abc')), SHA256_ABC);
  check(
    'BLAKE3 derive-key',
    provider.blake3DeriveKey('BLAKE3 2019-12-27 16:29:52 test vectors context', new Uint8Array(0)),
    DERIVE_EMPTY,
  );
  const streams = [
    { hash: provider.createBlake3(), data: long, expected: provider.blake3(long) },
    { hash: provider.createBlake3(), data: long.subarray(1), expected: blake3Scalar(long.subarray(1)) },
    { hash: provider.createSha256(), data: long, expected: provider.sha256(long) },
    { hash: provider.createSha256(), data: long.subarray(1), expected: provider.sha256(long.subarray(1)) },
  ];
  for (let at = 0; at < long.length; at += 700) {
    for (const { hash, data } of streams) hash.update(data.subarray(at, at + 700));
  }
  for (const { hash, expected } of streams) check('incremental', hash.digest(), expected);
}
