import { describe, expect, it } from 'vitest';

import { withoutSyntaxLine } from './directives.ts';

const stripped = (text: string) => new TextDecoder().decode(withoutSyntaxLine(new TextEncoder().encode(text)));

describe('withoutSyntaxLine', () => {
  it('keeps the other directives first and the number of lines', () => {
    expect(stripped('# syntax=docker/dockerfile:1\n# escape=`\nFROM a\n')).toBe('# escape=`\n#\nFROM a\n');
    expect(stripped('#syntax=x\r\nFROM a\r\n')).toBe('#\nFROM a\r\n');
  });

  it.each(['# hello\n# syntax=docker/dockerfile:1\nFROM a\n', '\n# syntax=x\nFROM a\n', '# syntax=\nFROM a\n'])(
    'leaves a comment that is no directive: %j',
    (text) => {
      expect(stripped(text)).toBe(text);
    },
  );

  it('takes linear time', () => {
    const text = `# check=${' '.repeat(1_000_000)}x\nFROM a\n`;
    expect(stripped(text)).toBe(text);
  });
});
