/** An expression that Go's compiler refuses; the message says why. */
export class RegexpFault extends Error {}

/** A place in the code points of an expression. */
export interface RuneReader {
  readonly source: readonly number[];
  at: number;
}
