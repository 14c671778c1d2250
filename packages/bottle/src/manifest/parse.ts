import { DecantError, KIB, quote } from '@decant/core';
import { isMap, isScalar, LineCounter, parseDocument, visit, type Document, type Node, type Pair } from 'yaml';
import type { z } from 'zod';

import { manifestSchema, type Manifest } from './schema.ts';

export const MAX_MANIFEST_BYTES = 256 * KIB;
/** Copies of anchored nodes that aliases may make in all. */
const MOST_ALIASES = 100;
const MOST_PROBLEMS = 20;

/** A place in a manifest at which something is wrong; lines and columns count from 1. */
export interface ManifestProblem {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** One sentence without the place. */
  readonly problem: string;
}

/**
 * Reads the text of a manifest: one YAML 1.2 document of the core schema, 256 KiB at most, without tags of its own or
 * keys that come twice.
 * @throws CONFIG_INVALID, which names file, line and column of the first problem and has all of them in its details.
 */
export function parseManifest(text: string, file: string): Manifest {
  if (Buffer.byteLength(text) > MAX_MANIFEST_BYTES) {
    throw new DecantError('CONFIG_INVALID', `${file} has more than ${MAX_MANIFEST_BYTES} bytes.`);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    schema: 'core',
    strict: true,
    stringKeys: true,
    prettyErrors: false,
    logLevel: 'error',
  });
  const problemAt = (offset: number, problem: string): ManifestProblem => {
    const { line, col } = lines.linePos(Math.min(offset, text.length));
    return { file, line, column: col, problem };
  };
  const syntax = [...document.errors, ...document.warnings].map((error) =>
    problemAt(error.pos[0], sentence(error.message)),
  );
  visit(document, {
    Alias(_, alias) {
      if (alias.resolve(document) === undefined)
        syntax.push(problemAt(alias.range?.[0] ?? 0, `Nothing is anchored as ${alias.source}.`));
    },
    Pair(_, { key }) {
      // Such a key would be lost on the way into an object.
      if (isScalar(key) && key.value === '__proto__') {
        syntax.push(problemAt(key.range?.[0] ?? 0, 'There is no key "__proto__".'));
      }
    },
  });
  if (syntax.length > 0) throw invalid(syntax);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: MOST_ALIASES });
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error;
    throw invalid([problemAt(0, 'Its aliases make more copies than a manifest may have.')]);
  }
  const parsed = manifestSchema.safeParse(value ?? {});
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.flatMap((issue) =>
    findings(issue, document).map(({ offset, problem }) => problemAt(offset, problem)),
  );
  throw invalid(problems);
}

/** The error for what is wrong with a manifest. */
export function invalid(problems: readonly ManifestProblem[]): DecantError {
  const sorted = [...problems].sort((a, b) => a.line - b.line || a.column - b.column).slice(0, MOST_PROBLEMS);
  const show = ({ file, line, column, problem }: ManifestProblem) => `${file}:${line}:${column}: ${problem}`;
  const [first, ...others] = sorted;
  return new DecantError('CONFIG_INVALID', first === undefined ? 'The manifest is invalid.' : show(first), {
    ...(others.length === 0 ? {} : { hint: `Also: ${others.map(show).join(' ')}` }),
    details: { problems: sorted },
  });
}

interface Finding {
  readonly offset: number;
  readonly problem: string;
}

function findings(issue: z.core.$ZodIssue, document: Document): Finding[] {
  const path = issue.path.filter((step) => typeof step !== 'symbol');
  if (issue.code === 'unrecognized_keys') {
    const where = path.length === 0 ? 'a manifest' : quote(path.join('.'));
    return issue.keys.map((key) => ({
      offset: keyOffset(document, path, key) ?? nodeOffset(document, path),
      problem: `There is no key ${quote(key)} in ${where}.`,
    }));
  }
  if (issue.code === 'invalid_key') {
    const key = String(path.at(-1));
    const why = issue.issues[0]?.message ?? 'is no key';
    return [{ offset: keyOffset(document, path.slice(0, -1), key) ?? 0, problem: `${quote(key)} ${why}.` }];
  }
  const name = path.length === 0 ? 'The manifest' : quote(path.join('.'));
  return [{ offset: nodeOffset(document, path), problem: `${name} ${complaint(issue)}.` }];
}

function complaint(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return issue.message.startsWith('is ') ? issue.message : `is not ${article(issue.expected)}`;
    case 'invalid_value':
      return `is none of ${issue.values.map(String).join(', ')}`;
    case 'invalid_union':
      return issue.message.startsWith('is ')
        ? issue.message
        : 'has a "type" that is none of read-only, read-write, overlay, tmpfs';
    case 'too_small':
      return issue.message.startsWith('is ') ? issue.message : `is less than ${issue.minimum}`;
    case 'too_big':
      return issue.message.startsWith('has ') ? issue.message : `is more than ${issue.maximum}`;
    default:
      return issue.message;
  }
}

function article(type: string): string {
  const names: Readonly<Record<string, string>> = {
    string: 'text (numbers and words such as true need quotes)',
    object: 'a map of keys',
    record: 'a map of keys',
    array: 'a list',
    number: 'a number',
    int: 'a whole number',
  };
  return names[type] ?? type;
}

/** Where the node at a path begins, or the nearest one around it. */
function nodeOffset(document: Document, path: readonly (string | number)[]): number {
  for (let length = path.length; length >= 0; length--) {
    const node = document.getIn(path.slice(0, length), true) as Node | undefined;
    const start = node?.range?.[0];
    if (start !== undefined) return start;
  }
  return 0;
}

function keyOffset(document: Document, path: readonly (string | number)[], key: string): number | undefined {
  const map = path.length === 0 ? document.contents : document.getIn(path, true);
  if (!isMap(map)) return undefined;
  const pair = map.items.find((item: Pair) => String((item.key as { value?: unknown } | null)?.value) === key);
  return (pair?.key as Node | undefined)?.range?.[0];
}

function sentence(message: string): string {
  const text = message.split('\n')[0]!.trim();
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
