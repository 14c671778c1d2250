import { readDirectives } from './directives.ts';
import { readInstructions } from './instructions.ts';

/**
 * The Dockerfile with one more line at the beginning of every stage, right behind its FROM. @throws
 * DOCKERFILE_INVALID
 */
export function withLineAfterFrom(dockerfile: Uint8Array, line: string): Uint8Array {
  const lines = new TextDecoder().decode(dockerfile).split('\n');
  const plain = lines.map((text) => text.replace(/\r$/, ''));
  const escape = readDirectives(plain).find(({ name }) => name === 'escape')?.value ?? '\\';
  const ends = new Set<number>();
  for (const { keyword, lastLine } of readInstructions(plain, escape, 'Dockerfile')) {
    if (keyword === 'FROM') ends.add(lastLine);
  }
  const edited = lines.flatMap((text, index) => (ends.has(index + 1) ? [text, line] : [text]));
  return new TextEncoder().encode(edited.join('\n'));
}
