import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { readNeeds, withoutSyntaxLine } from './dockerfile.ts';

const needs = (text: string) => readNeeds({ displayPath: 'Dockerfile', bytes: new TextEncoder().encode(text) });
const stripped = (text: string) => new TextDecoder().decode(withoutSyntaxLine(new TextEncoder().encode(text)));

describe('readNeeds', () => {
  it('finds stages, arguments, platforms and features with their lines', () => {
    const found = needs(`# syntax = docker/dockerfile:1
ARG V=1
from --platform=$BUILDPLATFORM base:$V as Build
# a comment
RUN --mount=type=cache,target=/c \\
    # a comment inside
    --mount=type=secret,id=tok,required=true \\

    make
ARG A B=2
FROM other
COPY --link --chmod=755 --from=build /x /y
`);
    expect(found.syntax).toBe('docker/dockerfile:1');
    expect(found.stages).toEqual([
      { name: 'Build', line: 3 },
      { name: undefined, line: 11 },
    ]);
    expect([...found.args]).toEqual(['V', 'A', 'B']);
    expect([...found.platforms]).toEqual([['$BUILDPLATFORM', 3]]);
    expect([...found.secrets]).toEqual([['tok', 5]]);
    expect(Object.fromEntries(found.features)).toEqual({ 'RUN --mount': 5, 'COPY --link': 12, 'COPY --chmod': 12 });
  });

  it('takes the name of a secret from its target when it has no id', () => {
    expect([...needs('FROM a\nRUN --mount=type=secret,target=/run/x/key true\n').secrets.keys()]).toEqual(['key']);
    expect(needs('FROM a\nRUN --mount=type=bind,source=x,target=/x true\n').secrets.size).toBe(0);
  });

  it.each([
    ['RUN <<EOF\nFROM nothing\nEOF\n', true],
    ['RUN python3 <<-"END" > /x\n\tx\n\tEND\n', true],
    ['COPY <<A <<B /d/\na\nA\nb\nB\n', true],
    ['RUN cat <<< word\n', false],
    ['RUN echo $((1<<A))\n', false],
    ['RUN echo "a << b" 1<<b\n', false],
    ['ENV X=<<EOF\n', false],
  ])('sees whether %j has a here-document', (line, expected) => {
    const found = needs(`FROM a\n${line}`);
    expect(found.features.has('heredoc')).toBe(expected);
    expect(found.stages).toHaveLength(1);
  });

  it('reads another escape character and CRLF', () => {
    const found = needs('# escape=`\r\nFROM a\r\nRUN --network=none`\r\n  true\r\nARG Z\r\n');
    expect(found.features.get('RUN --network')).toBe(3);
    expect(found.args.has('Z')).toBe(true);
  });

  it('refuses a file without FROM and one that is too large', () => {
    expect(() => needs('RUN true\n')).toThrow(expect.objectContaining({ code: 'DOCKERFILE_INVALID' }));
    expect(() => needs('#'.repeat(4 * 1024 * 1024 + 1))).toThrow(
      expect.objectContaining({ code: 'DOCKERFILE_INVALID' }),
    );
  });

  it('ends on any text', () => {
    const piece = fc.oneof(
      fc.string(),
      fc.constantFrom('FROM a\n', '\\\n', 'RUN <<A\n', 'A\n', '# syntax=x\n', '--mount='),
    );
    fc.assert(
      fc.property(fc.array(piece), (pieces) => {
        expect(needs(`FROM first\n${pieces.join('')}`).stages[0]).toEqual({ name: undefined, line: 1 });
      }),
    );
  });
});

describe('withoutSyntaxLine', () => {
  it('keeps the other directives first and the number of lines', () => {
    expect(stripped('# syntax=docker/dockerfile:1\n# escape=`\nFROM a\n')).toBe('# escape=`\n#\nFROM a\n');
    expect(stripped('#syntax=x\r\nFROM a\r\n')).toBe('#\nFROM a\r\n');
  });

  it('leaves a comment that is no directive any more', () => {
    const text = '# hello\n# syntax=docker/dockerfile:1\nFROM a\n';
    expect(stripped(text)).toBe(text);
    expect(needs(text).syntax).toBeUndefined();
  });
});
