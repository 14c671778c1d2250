import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { readInstructions } from './instructions.ts';

const read = (text: string, escape = '\\') => [...readInstructions(text.split('\n'), escape, 'Dockerfile')];
const lines = (text: string) => read(text).map(({ keyword, line }) => `${line} ${keyword}`);

describe('readInstructions', () => {
  it('joins continued lines and leaves comments and empty lines out', () => {
    expect(read('\n  # one\nrun a \\  \n# two\n\n  b\\\nc\nFROM x')).toEqual([
      { keyword: 'RUN', words: ['a', 'bc'], line: 3, lastLine: 7, heredoc: false },
      { keyword: 'FROM', words: ['x'], line: 8, lastLine: 8, heredoc: false },
    ]);
    expect(read('RUN a\\\nCOPY b', '`').map(({ keyword }) => keyword)).toEqual(['RUN', 'COPY']);
    expect(lines('RUN a \\\n')).toEqual(['1 RUN']);
  });

  it.each([
    ['RUN <<EOF\nFROM nothing\nEOF', true],
    ['RUN python3 <<-"END" > /x\n\tx\n\tEND', true],
    ['COPY <<A <<B /d/\na\nA\nFROM b\nB', true],
    ['RUN x 3<<EOF\nFROM nothing\nEOF', true],
    ['RUN x <<\\EOF\nFROM nothing \\\nEOF', true],
    ['ONBUILD RUN <<EOF\nFROM nothing\nEOF', true],
    ['RUN cat <<< word', false],
    ['RUN echo $((1<<A))', false],
    ['RUN echo $((1 << 2))', false],
    ['RUN echo "a << b" 1<<b', false],
    ['RUN cat <<EOF', false],
    ['RUN ["cat", "<<EOF"]', false],
    ['ENV X=<<EOF', false],
    ['ENV X <<EOF\nEOF', false],
  ])('sees whether %j has a here-document, and passes its body over', (text, heredoc) => {
    const [first, ...others] = read(`${text}\nUSER after`);
    expect(first!.heredoc).toBe(heredoc);
    expect(others.at(-1)).toMatchObject({ keyword: 'USER', words: ['after'] });
    if (heredoc) expect(others).toHaveLength(1);
  });

  it('takes no end of an earlier here-document for that of a later one', () => {
    const [first, second, third] = read('RUN <<E\nx\nE\nRUN cat <<E\nUSER x');
    expect([first!.heredoc, second!.heredoc, third!.keyword]).toEqual([true, false, 'USER']);
  });

  it('ends a here-document only at a line that is its name', () => {
    expect(lines('RUN <<E\n E\nE \n\tE\nEE\nE\nUSER x')).toEqual(['1 RUN', '7 USER']);
    expect(lines('RUN <<"-E"\n\t-E\nRUN <<-E\n-E\nUSER x')).toEqual(['1 RUN', '5 USER']);
  });

  it('takes linear time for here-documents without end and for white space', () => {
    const many = Array.from({ length: 100_000 }, (_, index) => `RUN <<E${index}`).join('\n');
    expect(read(many)).toHaveLength(100_000);
    expect(read(`RUN a${' '.repeat(1_000_000)}b\n`)[0]!.words).toEqual(['a', 'b']);
  });

  it('gives every line outside of bodies to an instruction, in order', () => {
    const piece = fc.constantFrom('RUN a', 'RUN <<E', 'E', '# c', '', 'x \\', '\t', 'COPY <<-F 2<<E', '\tF');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (text) => {
        let found: number[];
        try {
          found = read(text.join('\n')).map(({ line }) => line);
        } catch (error) {
          expect(error).toMatchObject({ code: 'DOCKERFILE_INVALID' });
          return;
        }
        expect(found).toEqual([...new Set(found)].sort((a, b) => a - b));
        for (const line of found) expect(text[line - 1]!.trim()).not.toMatch(/^(?:#|$)/);
      }),
    );
  });
});
