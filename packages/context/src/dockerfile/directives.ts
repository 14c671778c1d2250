import { bytesOf, toByteString, type ByteString } from '../byte-string.ts';

/** A parser directive, `# name=value`, which counts only in front of everything else. */
export interface Directive {
  readonly name: string;
  readonly value: string;
  /** From 1. */
  readonly line: number;
}

const KNOWN = new Set(['syntax', 'escape', 'check']);

/** The directives; they end at the first line that is none, be it a comment (Dockerfile reference, "Parser directives"). */
export function readDirectives(lines: readonly string[]): Directive[] {
  const directives: Directive[] = [];
  for (const line of lines) {
    const match = /^\s*#\s*([A-Za-z]+)\s*=(.*)$/s.exec(line);
    const name = match?.[1]!.toLowerCase() ?? '';
    const value = match?.[2]!.trim() ?? '';
    if (!KNOWN.has(name) || value === '') break;
    directives.push({ name, value, line: directives.length + 1 });
  }
  return directives;
}

/**
 * The Dockerfile without its `# syntax=` line, so that the engine's own front end reads it. The other directives
 * must stay first (any comment ends them), so a comment after them keeps the number of lines.
 */
export function withoutSyntaxLine(dockerfile: Uint8Array): Uint8Array {
  const lines = byteLines(dockerfile);
  const directives = readDirectives(new TextDecoder().decode(dockerfile).split('\n'));
  const kept = directives.filter(({ name }) => name !== 'syntax').map(({ line }) => lines[line - 1]!);
  const fillers = Array.from({ length: directives.length - kept.length }, () => '#');
  return bytesOf([...kept, ...fillers, ...lines.slice(directives.length)].join('\n') as ByteString);
}

/**
 * The lines as bytes, without a byte order mark: what is put together of them is what the author wrote, also when
 * that is not UTF-8. They are as many as those of the text.
 */
export function byteLines(dockerfile: Uint8Array): string[] {
  return toByteString(dockerfile)
    .replace(/^\xef\xbb\xbf/, '')
    .split('\n');
}
