import type { ErrorCode } from '../packages/core/src/index.ts';
import type { Random } from './random.ts';

/** A parser of untrusted bytes, and how to make inputs that get far into it. */
export interface FuzzTarget {
  readonly name: string;
  /** The errors that the parser documents; anything else it throws is a finding. */
  readonly refusals: readonly ErrorCode[];
  /** Most milliseconds of the processor for one input. */
  readonly maxMs: number;
  /** Most bytes of memory that one input may add to what the process holds. */
  readonly maxMemoryBytes: number;
  /** A valid input. */
  generate(random: Random): Uint8Array;
  /** Makes checksums and the like fit again after a mutation, as far as there are any, so that deeper checks are reached. */
  repair?(bytes: Uint8Array<ArrayBuffer>, random: Random): void;
  /**
   * Parses an input and, when it is accepted, checks what was promised of it: above all that it re-encodes to itself.
   * Throws what the parser throws, and a {@link Finding} when a promise is broken.
   */
  check(bytes: Uint8Array): void | Promise<void>;
}

/** Something a parser accepted that it should not have. */
export class Finding extends Error {
  override readonly name = 'Finding';
}

/** @throws Finding */
export function requireEqualBytes(what: string, actual: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  throw new Finding(`${what} differs: ${actual.length} and ${expected.length} bytes, from byte ${at} on`);
}
