import { readClass, readEscape, readGroupEscape, type RuneTest } from './go-regexp-class.ts';
import { RegexpFault, type RuneReader } from './rune-reader.ts';

/**
 * Regular expressions of the Go language (RE2 syntax), the part that an ignore pattern can be turned into:
 * literals, escapes, classes, `.`, groups, `|`, `*` `?` `{n,m}`, `^` `$` `\A` `\z` `\b` `\B` and `\Q…\E`.
 * JavaScript's own expressions differ in too many of them (`\f`, `[[:alpha:]]`, `{`, `.`) and backtrack.
 */
export type RegexpNode =
  | { readonly kind: 'rune'; readonly test: RuneTest }
  | { readonly kind: 'assert'; readonly what: 'begin' | 'end' | 'word' | 'not-word' }
  | { readonly kind: 'sequence'; readonly nodes: RegexpNode[] }
  | { readonly kind: 'choice'; readonly nodes: RegexpNode[] }
  /** `max` undefined: without bound. */
  | { readonly kind: 'repeat'; readonly node: RegexpNode; readonly min: number; readonly max: number | undefined };

const MOST_REPEATS = 1000;
const CODE = (text: string) => text.codePointAt(0)!;

/** Reads an expression. @throws RegexpFault */
export function parseGoRegexp(source: readonly number[]): RegexpNode {
  const reader = { source, at: 0 };
  const node = readChoice(reader);
  if (reader.at < source.length) throw new RegexpFault('a ) has no (');
  return node;
}

function readChoice(reader: RuneReader): RegexpNode {
  const branches: RegexpNode[] = [readSequence(reader)];
  while (reader.source[reader.at] === CODE('|')) {
    reader.at += 1;
    branches.push(readSequence(reader));
  }
  return branches.length === 1 ? branches[0]! : { kind: 'choice', nodes: branches };
}

function readSequence(reader: RuneReader): RegexpNode {
  const { source } = reader;
  const nodes: RegexpNode[] = [];
  let afterRepeat = false;
  while (reader.at < source.length && source[reader.at] !== CODE('|') && source[reader.at] !== CODE(')')) {
    const bounds = readRepeat(reader);
    if (bounds !== undefined) {
      if (afterRepeat) throw new RegexpFault('a repetition is repeated');
      const node = nodes.pop();
      if (node === undefined) throw new RegexpFault('there is nothing to repeat');
      nodes.push({ kind: 'repeat', node, ...bounds });
    } else {
      readAtoms(reader, nodes);
    }
    afterRepeat = bounds !== undefined;
  }
  return { kind: 'sequence', nodes };
}

function readRepeat(reader: RuneReader): { min: number; max: number | undefined } | undefined {
  const { source, at } = reader;
  const rune = source[at];
  if (rune === CODE('*') || rune === CODE('?')) {
    reader.at += 1;
    return { min: 0, max: rune === CODE('*') ? undefined : 1 };
  }
  if (rune !== CODE('{')) return undefined;
  // At most the two longest numbers Go itself would look at; anything else between braces is literal text.
  const close = source.indexOf(CODE('}'), at);
  if (close < 0 || close - at > 24) return undefined;
  const match = /^(0|[1-9]\d*)(?:(,)(0|[1-9]\d*)?)?$/.exec(String.fromCodePoint(...source.slice(at + 1, close)));
  if (match === null) return undefined;
  const min = Number(match[1]);
  const max = match[2] === undefined ? min : match[3] === undefined ? undefined : Number(match[3]);
  if (min > MOST_REPEATS || (max !== undefined && (max > MOST_REPEATS || max < min))) {
    throw new RegexpFault(`a repetition is over ${MOST_REPEATS} times or ends before it begins`);
  }
  reader.at = close + 1;
  return { min, max };
}

function readAtoms(reader: RuneReader, nodes: RegexpNode[]): void {
  const { source } = reader;
  const rune = source[reader.at]!;
  if (rune === CODE('(')) {
    reader.at += 1;
    nodes.push(readChoice(reader));
    if (source[reader.at] !== CODE(')')) throw new RegexpFault('a ( has no )');
    reader.at += 1;
  } else if (rune === CODE('[')) {
    nodes.push({ kind: 'rune', test: readClass(reader) });
  } else if (rune === CODE('\\')) {
    readBackslash(reader, nodes);
  } else {
    reader.at += 1;
    if (rune === CODE('^')) nodes.push({ kind: 'assert', what: 'begin' });
    else if (rune === CODE('$')) nodes.push({ kind: 'assert', what: 'end' });
    else if (rune === CODE('.')) nodes.push({ kind: 'rune', test: (given) => given !== 0x0a });
    else nodes.push(literal(rune));
  }
}

const ASSERTIONS = { A: 'begin', z: 'end', b: 'word', B: 'not-word' } as const;

function readBackslash(reader: RuneReader, nodes: RegexpNode[]): void {
  const { source } = reader;
  const letter = String.fromCodePoint(source[reader.at + 1] ?? 0);
  if (Object.hasOwn(ASSERTIONS, letter)) {
    reader.at += 2;
    nodes.push({ kind: 'assert', what: ASSERTIONS[letter as keyof typeof ASSERTIONS] });
  } else if (letter === 'Q') {
    reader.at += 2;
    while (reader.at < source.length && !(source[reader.at] === CODE('\\') && source[reader.at + 1] === CODE('E'))) {
      nodes.push(literal(source[reader.at]!));
      reader.at += 1;
    }
    reader.at += 2;
  } else {
    const group = readGroupEscape(reader);
    nodes.push(group === undefined ? literal(readEscape(reader)) : { kind: 'rune', test: group });
  }
}

function literal(rune: number): RegexpNode {
  return { kind: 'rune', test: (given) => given === rune };
}
