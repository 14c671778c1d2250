import { RegexpFault, type RuneReader } from './rune-reader.ts';

/** Whether a code point belongs to a class. */
export type RuneTest = (rune: number) => boolean;

const CODE = (text: string) => text.codePointAt(0)!;
const MAX_RUNE = 0x10ffff;

const PERL: Readonly<Record<string, string>> = { d: '0-9', s: '\\t\\n\\f\\r ', w: '0-9A-Za-z_' };

const POSIX: Readonly<Record<string, string>> = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  ascii: '\\x00-\\x7f',
  blank: '\\t ',
  cntrl: '\\x00-\\x1f\\x7f',
  digit: '0-9',
  graph: '!-~',
  lower: 'a-z',
  print: ' -~',
  punct: '!-\\/:-@\\[-`{-~',
  space: '\\t\\n\\v\\f\\r ',
  upper: 'A-Z',
  word: '0-9A-Za-z_',
  xdigit: '0-9A-Fa-f',
};

const CATEGORY = /^(?:L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?|C[cfos])$/;

/** Reads a class from its `[` to its `]`. A negated class has the line feed too. @throws RegexpFault */
export function readClass(reader: RuneReader): RuneTest {
  const { source } = reader;
  reader.at += 1;
  const negated = source[reader.at] === CODE('^');
  if (negated) reader.at += 1;
  const tests: RuneTest[] = [];
  for (let first = true; first || source[reader.at] !== CODE(']'); first = false) {
    tests.push(readPosixClass(reader) ?? readGroupEscape(reader) ?? readRange(reader));
  }
  reader.at += 1;
  return (rune) => tests.some((test) => test(rune)) !== negated;
}

function readRange(reader: RuneReader): RuneTest {
  const { source } = reader;
  const low = readMember(reader);
  let high = low;
  if (source[reader.at] === CODE('-') && reader.at + 1 < source.length && source[reader.at + 1] !== CODE(']')) {
    reader.at += 1;
    high = readMember(reader);
    if (high < low) throw new RegexpFault('a range in [ ] ends before it begins');
  }
  return (rune) => rune >= low && rune <= high;
}

function readMember(reader: RuneReader): number {
  const rune = reader.source[reader.at];
  if (rune === undefined) throw new RegexpFault('a [ has no ]');
  if (rune === CODE('\\')) return readEscape(reader);
  reader.at += 1;
  return rune;
}

function readPosixClass(reader: RuneReader): RuneTest | undefined {
  const { source, at } = reader;
  if (source[at] !== CODE('[') || source[at + 1] !== CODE(':')) return undefined;
  let close = at + 2;
  while (close < source.length && !(source[close] === CODE(':') && source[close + 1] === CODE(']'))) close += 1;
  if (close >= source.length) return undefined;
  // The longest name is shorter than this; a hostile pattern must not make a long string of each of its `[:`.
  const name = close - at > 16 ? '' : String.fromCodePoint(...source.slice(at + 2, close));
  const negated = name.startsWith('^');
  const members = Object.hasOwn(POSIX, name.slice(Number(negated))) ? POSIX[name.slice(Number(negated))] : undefined;
  if (members === undefined) throw new RegexpFault('a [: :] has an unknown name');
  reader.at = close + 2;
  return testOf(`[${negated ? '^' : ''}${members}]`);
}

/** Reads `\d`, `\pL`, `\P{Greek}` and the like; undefined when the reader is at something else. @throws RegexpFault */
export function readGroupEscape(reader: RuneReader): RuneTest | undefined {
  const { source, at } = reader;
  if (source[at] !== CODE('\\') || at + 1 >= source.length) return undefined;
  const letter = String.fromCodePoint(source[at + 1]!);
  const small = letter.toLowerCase();
  if (Object.hasOwn(PERL, small) && /^[dDsSwW]$/.test(letter)) {
    reader.at += 2;
    return testOf(`[${letter === small ? '' : '^'}${PERL[small]}]`);
  }
  if (letter !== 'p' && letter !== 'P') return undefined;
  let end = at + 3;
  let name = String.fromCodePoint(source[at + 2] ?? 0);
  if (name === '{') {
    const close = source.indexOf(CODE('}'), at);
    if (close < 0 || close - at > 40) throw new RegexpFault('a \\p{ } has an unknown name');
    name = String.fromCodePoint(...source.slice(at + 3, close));
    end = close + 1;
  }
  const negated = (letter === 'P') !== name.startsWith('^');
  reader.at = end;
  return testOf(`[${negated ? '^' : ''}${unicodeMembers(name.replace(/^\^/, ''))}]`);
}

function unicodeMembers(name: string): string {
  if (name === 'Any') return '\\p{Any}';
  // Without the unassigned code points, which Go leaves out.
  if (name === 'C') return '\\p{Cc}\\p{Cf}\\p{Co}\\p{Cs}';
  if (CATEGORY.test(name)) return `\\p{${name}}`;
  const script = `\\p{Script=${name}}`;
  try {
    if (/^[A-Z][A-Za-z_]+$/.test(name) && new RegExp(script, 'u').unicode) return script;
  } catch {
    // Not a script that this engine knows.
  }
  throw new RegexpFault('a \\p has an unknown name');
}

/** A class written for JavaScript, as a test; the table for ASCII spares most calls of the expression. */
function testOf(source: string): RuneTest {
  const expression = new RegExp(`^${source}$`, 'u');
  const ascii = Array.from({ length: 128 }, (_, rune) => expression.test(String.fromCharCode(rune)));
  return (rune) => (rune < 128 ? ascii[rune]! : expression.test(String.fromCodePoint(rune)));
}

const CONTROLS: Readonly<Record<string, number>> = { a: 7, f: 12, n: 10, r: 13, t: 9, v: 11 };

/** Reads an escape that stands for one code point. @throws RegexpFault */
export function readEscape(reader: RuneReader): number {
  const { source } = reader;
  const rune = source[reader.at + 1];
  if (rune === undefined) throw new RegexpFault('it ends with a lone backslash');
  const letter = String.fromCodePoint(rune);
  reader.at += 2;
  if (Object.hasOwn(CONTROLS, letter)) return CONTROLS[letter]!;
  if (letter === 'x') return readHex(reader);
  // A single digit from 1 to 7 would be a back-reference, which Go does not have.
  if (letter === '0' || (/[1-7]/.test(letter) && isOctal(source[reader.at]))) {
    let value = rune - CODE('0');
    for (let digits = 1; digits < 3 && isOctal(source[reader.at]); digits++) {
      value = value * 8 + source[reader.at]! - CODE('0');
      reader.at += 1;
    }
    return value;
  }
  if (rune >= 0x80 || /[0-9A-Za-z]/.test(letter)) throw new RegexpFault(`\\${letter} has no meaning`);
  return rune;
}

function readHex(reader: RuneReader): number {
  const { source } = reader;
  const braced = source[reader.at] === CODE('{');
  if (braced) reader.at += 1;
  const most = braced ? Number.POSITIVE_INFINITY : 2;
  let value = 0;
  let digits = 0;
  for (; digits < most && isHex(source[reader.at]) && value <= MAX_RUNE; digits++) {
    value = value * 16 + Number.parseInt(String.fromCodePoint(source[reader.at]!), 16);
    reader.at += 1;
  }
  const whole = braced ? digits > 0 && source[reader.at] === CODE('}') : digits === 2;
  if (!whole || value > MAX_RUNE) throw new RegexpFault('\\x has no hexadecimal number behind it');
  if (braced) reader.at += 1;
  return value;
}

function isOctal(rune: number | undefined): boolean {
  return rune !== undefined && rune >= CODE('0') && rune <= CODE('7');
}

function isHex(rune: number | undefined): boolean {
  return rune !== undefined && rune < 0x80 && /[0-9A-Fa-f]/.test(String.fromCharCode(rune));
}
