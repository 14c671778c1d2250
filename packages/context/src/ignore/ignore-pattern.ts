import { runesOf, type ByteString } from '../byte-string.ts';
import { RegexpProgram } from './go-regexp-program.ts';
import { parseGoRegexp } from './go-regexp.ts';

/** One path tested by several patterns; its code points are worked out once, and only when a pattern wants them. */
export class TestedPath {
  readonly bytes: ByteString;
  #runes: number[] | undefined;

  constructor(bytes: ByteString) {
    this.bytes = bytes;
  }

  get runes(): readonly number[] {
    return (this.#runes ??= runesOf(this.bytes));
  }
}

/** One pattern of an ignore file, compiled. */
export interface IgnorePattern {
  /** Cleaned and without its `!`. */
  readonly source: ByteString;
  /** Whether it began with `!`. */
  readonly exception: boolean;
  /** Line of the ignore file, from 1. */
  readonly line: number;
  readonly matches: (path: TestedPath) => boolean;
}

/** Escaped on the way to an expression; `{ } |` are not, see {@link compilePattern}. */
const ESCAPED = new Set(['.', '+', '(', ')', '$'].map((character) => character.codePointAt(0)!));
const CODE = (text: string) => text.codePointAt(0)!;
const [STAR, QUESTION, SLASH, BACKSLASH, OPEN, CLOSE] = ['*', '?', '/', '\\', '[', ']'].map(CODE) as [
  number,
  number,
  number,
  number,
  number,
  number,
];

/**
 * The test for a cleaned pattern, as Moby's pattern matcher makes it: a pattern without wildcards is compared,
 * `name**` and `**name` (and no other wildcard) compare a start and an end, everything else becomes a regular
 * expression. That way the oddities are Moby's: an escaped letter is an escape of the expression (`\d` is a
 * digit), and in a pattern with a wildcard `{ } | ^` have their meaning in expressions.
 * @throws RegexpFault when Go would not compile the expression.
 */
export function compilePattern(source: ByteString): IgnorePattern['matches'] {
  const { form, expression } = expressionOf(runesOf(source));
  switch (form) {
    case 'exact':
      return (path) => path.bytes === source;
    case 'start': {
      const start = source.slice(0, -2);
      return (path) => path.bytes.startsWith(start);
    }
    case 'end': {
      const end = source.slice(2);
      return (path) => path.bytes.endsWith(end) || (end.startsWith('/') && path.bytes === end.slice(1));
    }
    case 'expression':
      break;
  }
  const program = new RegexpProgram(parseGoRegexp(expression));
  return (path) => program.test(path.runes);
}

type Form = 'exact' | 'start' | 'end' | 'expression';

function expressionOf(given: readonly number[]): { form: Form; expression: number[] } {
  // The scanner that Moby reads patterns with drops a byte order mark in front.
  const runes = given[0] === 0xfeff ? given.slice(1) : given;
  const expression: number[] = [];
  const write = (text: string) => expression.push(...Array.from(text, CODE));
  let form: Form = 'exact';
  write('^');
  for (let at = 0; at < runes.length; at++) {
    const rune = runes[at]!;
    if (rune === STAR && runes[at + 1] === STAR) {
      const first = at === 0;
      at += runes[at + 2] === SLASH ? 2 : 1;
      if (at + 1 < runes.length) {
        write('(.*/)?');
        form = 'expression';
      } else if (form === 'exact') {
        form = 'start';
      } else {
        write('.*');
        form = 'expression';
      }
      if (first) form = 'end';
    } else if (rune === STAR || rune === QUESTION) {
      write(rune === STAR ? '[^/]*' : '[^/]');
      form = 'expression';
    } else if (ESCAPED.has(rune)) {
      expression.push(BACKSLASH, rune);
    } else if (rune === BACKSLASH) {
      expression.push(BACKSLASH);
      at += 1;
      if (at < runes.length) {
        expression.push(runes[at]!);
        form = 'expression';
      }
    } else {
      expression.push(rune);
      if (rune === OPEN || rune === CLOSE) form = 'expression';
    }
  }
  write('$');
  return { form, expression };
}
