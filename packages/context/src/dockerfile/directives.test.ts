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

  it('keeps every byte, also of a text that is not UTF-8', () => {
    const latin1 = Buffer.from('# syntax=x\nFROM a\nRUN printf "caf\xe9" > /x # \xff\xfe\n', 'latin1');
    expect(Buffer.from(withoutSyntaxLine(latin1)).toString('latin1')).toBe(
      '#\nFROM a\nRUN printf "caf\xe9" > /x # \xff\xfe\n',
    );
    expect(stripped('\uFEFF# syntax=x\n# escape=`\nFROM ü\n')).toBe('# escape=`\n#\nFROM ü\n');
  });

  it('takes linear time', () => {
    const text = `# check=${' '.repeat(1_000_000)}x\nFROM a\n`;
    expect(stripped(text)).toBe(text);
  });
});
