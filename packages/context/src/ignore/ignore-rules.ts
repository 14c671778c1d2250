import { DecantError, quote } from '@decant/core';

import { textOf, toByteString, type ByteString } from '../byte-string.ts';
import { cleanPath, patternFault, trimSpace } from './go-path.ts';
import { compilePattern, TestedPath, type IgnorePattern } from './ignore-pattern.ts';
import { RegexpFault } from './rune-reader.ts';

/** A line of this many bytes (its line feed not counted) is refused: Go's line reader has a buffer of 64 KiB. */
const LONGEST_LINE = 65_536;
/** Largest ignore file that is read. */
const LARGEST_FILE = 4 * 1024 * 1024;
/** These make a pattern's reach unknowable to the walk when they stand before its tail. */
const WILD = /[*[\]?^\\]/;

/**
 * What becomes of a path on a walk: `keep` it; `skip` it and all that is below; or `descend` into the directory,
 * which itself is kept only when something below it is.
 */
export interface IgnoreDecision {
  readonly action: 'keep' | 'skip' | 'descend';
  /** Decides about what is directly in this directory. */
  readonly below: IgnoreLevel;
}

/** The rules as seen from one directory: which of them matched it or a directory above it. */
export interface IgnoreLevel {
  /** Decides about an entry directly in this directory, given by its whole path below the context's root. */
  decide(path: string | Uint8Array, isDirectory: boolean): IgnoreDecision;
}

/** The rules of an ignore file. */
export interface IgnoreRules {
  /** As shown to people. */
  readonly fileName: string;
  /** The patterns as they are applied, in order, exceptions with their `!`. */
  readonly patterns: readonly string[];
  /** Decides about what is directly in the context's root. */
  readonly root: IgnoreLevel;
  /** Whether a file or link at this path stays out of the context, judged as a walk to it would. */
  excludes(path: string | Uint8Array): boolean;
}

/**
 * Reads a `.dockerignore` as current Moby does (its ignore-file reader and pattern matcher) and applies it as
 * BuildKit's current directory filter does. `fileName` is what messages call it.
 * @throws IGNORE_FILE_INVALID with `details.file` and `details.line`.
 */
export function parseIgnoreFile(bytes: Uint8Array, fileName: string): IgnoreRules {
  if (bytes.length > LARGEST_FILE) throw invalid(fileName, 1, `the file is over ${LARGEST_FILE} bytes`);
  const patterns: IgnorePattern[] = [];
  toByteString(bytes)
    .split('\n')
    .forEach((text, index) => {
      const line = index + 1;
      if (text.length >= LONGEST_LINE) throw invalid(fileName, line, `the line is over ${LONGEST_LINE - 1} bytes long`);
      const pattern = readLine((line === 1 ? text.replace(/^\xef\xbb\xbf/, '') : text) as ByteString);
      if (pattern !== '') patterns.push(readPattern(pattern, fileName, line));
    });
  return new Rules(fileName, patterns);
}

/** The pattern of a line, or '' when it has none. */
function readLine(line: ByteString): ByteString {
  if (line.startsWith('#')) return '' as ByteString;
  let pattern = trimSpace(line);
  if (pattern === '') return pattern;
  const exception = pattern.startsWith('!');
  if (exception) pattern = trimSpace(pattern.slice(1) as ByteString);
  if (pattern !== '') {
    pattern = cleanPath(pattern);
    if (pattern.length > 1 && pattern.startsWith('/')) pattern = pattern.slice(1) as ByteString;
  }
  // Trimmed and cleaned twice, the second time with the `!`, because the matcher does so again after the reader.
  pattern = trimSpace((exception ? `!${pattern}` : pattern) as ByteString);
  return pattern === '' ? pattern : cleanPath(pattern);
}

function readPattern(pattern: ByteString, fileName: string, line: number): IgnorePattern {
  const exception = pattern.startsWith('!');
  const source = (exception ? pattern.slice(1) : pattern) as ByteString;
  if (source === '') throw invalid(fileName, line, 'a lone ! excepts nothing');
  const fault = patternFault(source);
  if (fault !== undefined) throw invalid(fileName, line, fault, source);
  try {
    return { source, exception, line, matches: compilePattern(source) };
  } catch (error) {
    if (!(error instanceof RegexpFault)) throw error;
    throw invalid(fileName, line, error.message, source);
  }
}

function invalid(file: string, line: number, fault: string, source?: ByteString): DecantError {
  const where = `${file}, line ${line}`;
  const shown = source === undefined ? '' : ` in the pattern ${quote(textOf(source))}`;
  return new DecantError('IGNORE_FILE_INVALID', `${where}: ${fault}${shown}.`, {
    hint: 'Correct or remove that line; a backslash before a special character makes it an ordinary one.',
    details: { file, line },
  });
}

class Rules implements IgnoreRules {
  readonly fileName: string;
  readonly patterns: readonly string[];
  readonly root: IgnoreLevel;

  constructor(fileName: string, patterns: readonly IgnorePattern[]) {
    this.fileName = fileName;
    this.patterns = patterns.map(({ exception, source }) => `${exception ? '!' : ''}${textOf(source)}`);
    this.root = new Level(patterns, reachOf(patterns), undefined);
  }

  excludes(path: string | Uint8Array): boolean {
    const whole = toByteString(path);
    let level = this.root as Level;
    for (let end = whole.indexOf('/'); end >= 0; end = whole.indexOf('/', end + 1)) {
      const { action, below } = level.decideBytes(whole.slice(0, end) as ByteString, true);
      if (action === 'skip') return true;
      level = below;
    }
    return level.decideBytes(whole, false).action !== 'keep';
  }
}

/**
 * Where exceptions can apply: anywhere (one has a wildcard before its tail), or at and below the listed paths,
 * each ending with `/`.
 */
type Reach = 'anywhere' | readonly string[];

function reachOf(patterns: readonly IgnorePattern[]): Reach {
  const stems = patterns
    .filter(({ exception }) => exception)
    .map(({ source }) => source.replace(/\/\*\*$/, '').replace(/\/\*$/, ''));
  return stems.some((stem) => WILD.test(stem)) ? 'anywhere' : stems.map((stem) => `${stem}/`);
}

class Level implements IgnoreLevel {
  readonly #patterns: readonly IgnorePattern[];
  readonly #reach: Reach;
  /** Of each pattern, whether it matched the directory; undefined at the root. */
  readonly #matched: readonly boolean[] | undefined;

  constructor(patterns: readonly IgnorePattern[], reach: Reach, matched: readonly boolean[] | undefined) {
    this.#patterns = patterns;
    this.#reach = reach;
    this.#matched = matched;
  }

  decide(path: string | Uint8Array, isDirectory: boolean): IgnoreDecision {
    return this.decideBytes(toByteString(path), isDirectory);
  }

  decideBytes(path: ByteString, isDirectory: boolean): IgnoreDecision & { readonly below: Level } {
    const tested = new TestedPath(path);
    const matched: boolean[] = [];
    let excluded = false;
    for (const [index, pattern] of this.#patterns.entries()) {
      // A pattern that could not change the verdict is not tried, and then counts as not matched further down too.
      const match = this.#matched?.[index] === true || (pattern.exception === excluded && pattern.matches(tested));
      matched.push(match);
      if (match) excluded = !pattern.exception;
    }
    const below = isDirectory ? new Level(this.#patterns, this.#reach, matched) : this;
    if (!excluded) return { action: 'keep', below };
    return { action: isDirectory && this.#reaches(path) ? 'descend' : 'skip', below };
  }

  #reaches(path: ByteString): boolean {
    return this.#reach === 'anywhere' || this.#reach.some((stem) => stem.startsWith(`${path}/`));
  }
}
