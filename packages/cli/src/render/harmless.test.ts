import { text } from 'node:stream/consumers';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { harmless } from './harmless.ts';

async function shown(...chunks: readonly (string | Uint8Array)[]): Promise<string> {
  const stream = harmless();
  for (const chunk of chunks) stream.write(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
  stream.end();
  return await text(stream);
}

describe('harmless', () => {
  test('text, lines, tabs and colours pass', async () => {
    const fine = 'ab\tc\r\n\u001B[1;31mrot\u001B[0m \u001B[38:2:1:2:3mäöü 日本 🍾\u001B[m\n';
    expect(await shown(fine)).toBe(fine);
    const bytes = Buffer.from(fine);
    expect(await shown(...Array.from(bytes, (byte) => Buffer.of(byte)))).toBe(fine);
  });

  test.each([
    ['a question that the terminal answers by typing', 'a\u001B[6nb\u001B[cc\u001B[>0qd'],
    ['the title and the clipboard', 'a\u001B]0;title\u0007b\u001B]52;c;ZXZpbA==\u001B\\cd'],
    ['the cursor, the screen and what was shown before', 'a\u001B[2Ab\u001B[2J\u001B[Hc\u001B[?1049hd'],
    ['strings that are never ended by what is in them', 'a\u001BPq#0;2;0;0;0\u001B\\b\u001B_x\u001B[6n\u001B\\cd'],
    ['the same as single characters', 'a\u009B6nb\u009D0;title\u009Cc\u0090x\u001B\\d'],
    ['character sets, resets and bells', 'a\u001B(0b\u001Bc\u0007\u000E\u0008c\u007Fd'],
    ['colours that are something else', 'a\u001B[>4;2mb\u001B[?25mcd'],
    ['a sequence within a sequence', 'a\u001B\u001B[6nb\u001B[3\u001B[6nc\u001B[\u0018d'],
    ['a sequence without an end', `a\u001B[${'1'.repeat(200)}mbcd`],
  ])('%s does not', async (_what, input) => {
    expect(await shown(input)).toBe('abcd');
  });

  test('whatever comes, in whatever pieces, nothing but colours begins with an escape', async () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 12 }),
      fc
        .constantFrom('\u001B[', '\u001B]', '\u001B', '6n', '31m', '\u009B', '\u0007', 'x')
        .map((part) => Buffer.from(part)),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 20 }), async (pieces) => {
        const whole = await shown(Buffer.concat(pieces));
        expect(await shown(...pieces)).toBe(whole);
        // oxlint-disable-next-line no-control-regex -- colours are the only sequences that are left
        const left = Array.from(whole.replaceAll(/\u001B\[[0-9;:]*m/g, ''), (character) => character.codePointAt(0)!);
        const isControl = (code: number) =>
          (code < 0x20 && ![9, 10, 13].includes(code)) || (code >= 0x7f && code <= 0x9f);
        expect(left.filter(isControl)).toEqual([]);
      }),
    );
  });
});
