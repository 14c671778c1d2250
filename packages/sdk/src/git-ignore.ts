import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

import type { IgnoreLevel } from '@decant/context';
import { DecantError, errnoOf, quote } from '@decant/core';
import ignore, { type Ignore } from 'ignore';

const LARGEST_FILE = 4 * 1024 * 1024;

/** The rules of one file, for paths below the directory it lies in. */
interface Rules {
  /** Empty, or with a `/` at its end. */
  readonly prefix: string;
  readonly lines: string;
  readonly rules: Ignore;
}

/**
 * Leaves out what git would not track: by the `.gitignore` of each directory, the deepest first, and by
 * `.git/info/exclude`. `.git` itself is kept. Files outside of the directory, such as the user's own rules, do not
 * count: the same directory gives the same list everywhere.
 * @throws CONTEXT_UNREADABLE for a rule file that cannot be read.
 */
export function gitIgnoreRules(root: string): IgnoreLevel {
  const excludes = rulesIn(root, '', '.git/info/exclude');
  return level(root, '', excludes === undefined ? [] : [excludes]);
}

/** Of no meaning for files, and of what is left out. */
const KEEP_ALL: IgnoreLevel = { decide: () => ({ action: 'keep', below: KEEP_ALL }) };

/** What is decided in one directory; `outer` are the rules of those above it, the deepest last. */
function level(root: string, prefix: string, outer: readonly Rules[]): IgnoreLevel {
  const own = rulesIn(root, prefix, '.gitignore');
  const all = own === undefined ? outer : [...outer, own];
  return {
    decide(path, isDirectory) {
      // Names that are no text match as git's own tools show them: by their bytes, where only `*` and `?` can.
      const text = typeof path === 'string' ? path : Buffer.from(path).toString('utf8');
      if (text === '.git' || text.endsWith('/.git')) return { action: 'keep', below: KEEP_ALL };
      if (isIgnored(all, text, isDirectory)) return { action: 'skip', below: KEEP_ALL };
      if (!isDirectory) return { action: 'keep', below: KEEP_ALL };
      return {
        action: 'keep',
        below: level(
          root,
          `${text}/`,
          all.map((one) => unlessBelow(one, text)),
        ),
      };
    },
  };
}

function isIgnored(all: readonly Rules[], path: string, isDirectory: boolean): boolean {
  for (const { prefix, rules } of all.toReversed()) {
    const { ignored, unignored } = rules.test(`${path.slice(prefix.length)}${isDirectory ? '/' : ''}`);
    if (ignored || unignored) return ignored;
  }
  return false;
}

/**
 * The rules for what lies in a directory that is kept. Where one of a deeper file kept what these leave out, git goes
 * on with the paths below as such; `ignore` would leave them out with the directory.
 */
function unlessBelow(one: Rules, directory: string): Rules {
  const path = `${directory.slice(one.prefix.length)}/`;
  if (!one.rules.test(path).ignored) return one;
  return parsed(one.prefix, `${one.lines}\n!/${path.replace(/[\\*?[\] ]/g, String.raw`\$&`)}`);
}

function parsed(prefix: string, lines: string): Rules {
  return { prefix, lines, rules: ignore({ ignorecase: false }).add(lines) };
}

function rulesIn(root: string, prefix: string, name: string): Rules | undefined {
  const file = join(root, prefix, name);
  try {
    const { size } = statSync(file);
    if (size > LARGEST_FILE) throw unreadable(file, `it has more than ${LARGEST_FILE} bytes`);
    return parsed(prefix, readFileSync(file, 'utf8'));
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'EISDIR') return undefined;
    throw error instanceof DecantError ? error : unreadable(file, errno ?? String(error), error);
  }
}

function unreadable(file: string, why: string, cause?: unknown): DecantError {
  return new DecantError('CONTEXT_UNREADABLE', `The ignore file ${quote(file)} cannot be read: ${why}.`, { cause });
}
