import { bytesOf, toByteString, type ByteString } from '../byte-string.ts';
import { byteLines, readDirectives } from './directives.ts';
import { readInstructions } from './instructions.ts';

/**
 * The Dockerfile with one more line at the beginning of every stage, right behind its FROM. @throws
 * DOCKERFILE_INVALID
 */
export function withLineAfterFrom(dockerfile: Uint8Array, line: string): Uint8Array {
  const text = new TextDecoder().decode(dockerfile);
  const plain = text.split('\n').map((one) => one.replace(/\r$/, ''));
  const escape = readDirectives(plain).find(({ name }) => name === 'escape')?.value ?? '\\';
  const ends = new Set<number>();
  for (const { keyword, lastLine } of readInstructions(plain, escape, 'Dockerfile')) {
    if (keyword === 'FROM') ends.add(lastLine);
  }
  const added = toByteString(line);
  const edited = byteLines(dockerfile).flatMap((one, index) => (ends.has(index + 1) ? [one, added] : [one]));
  return bytesOf(edited.join('\n') as ByteString);
}
