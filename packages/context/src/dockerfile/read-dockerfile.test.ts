import { isDecantError } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { readDockerfileFeatures } from './parse-dockerfile.ts';
import { readDockerfile, type ReadDockerfileOptions } from './read-dockerfile.ts';

describe('readDockerfile', () => {
  it('lists stages, their bases and the images that come from outside', () => {
    const { stages, args } = readDockerfile(`ARG VERSION=1.0
ARG REPO
FROM --platform=$BUILDPLATFORM golang:\${VERSION} AS Build
COPY --from=docker.io/library/tools:2 /x /x
FROM \${REPO:-debian}:12
ARG INNER OTHER=1
COPY --from=build /x /x
COPY --from=0 /y /y
RUN --mount=type=bind,from=cache:1,target=/c --mount=type=bind,from=cache:1,target=/d true
FROM build
FROM scratch
`);
    const none = { name: null, platform: null, baseStage: null, stagesUsed: [], externalImages: [], secrets: [] };
    const images = (...externalImages: string[]) => ({ ...none, externalImages });
    expect(stages).toEqual([
      {
        ...images('golang:1.0', 'docker.io/library/tools:2'),
        index: 0,
        name: 'build',
        base: 'golang:1.0',
        platform: 'linux/amd64',
        line: 3,
      },
      { ...images('debian:12', 'cache:1'), index: 1, base: 'debian:12', line: 5, stagesUsed: [0] },
      { ...none, index: 2, base: 'build', baseStage: 0, line: 10, stagesUsed: [0] },
      { ...none, index: 3, base: 'scratch', line: 11 },
    ]);
    expect([...args]).toEqual(['VERSION', 'REPO', 'INNER', 'OTHER']);
  });

  it('prefers build arguments to defaults and keeps both scopes of ARG apart', () => {
    const text =
      'ARG V=1\nARG P=linux/arm64\nFROM --platform=$P a:$V\nARG V\nARG W=2\nRUN --mount=type=secret,id=s-$V-$W true\n' +
      'FROM b:${W:-none}\n';
    const seen = (options?: ReadDockerfileOptions) =>
      readDockerfile(text, options).stages.flatMap((stage) => [
        stage.platform,
        ...stage.externalImages,
        ...stage.secrets.map(({ id }) => id),
      ]);
    expect(seen()).toEqual(['linux/arm64', 'a:1', 's-1-2', null, 'b:none']);
    const buildArgs = { V: '9', W: '8', P: 'linux/amd64', toString: 'x' };
    expect(seen({ buildArgs })).toEqual(['linux/amd64', 'a:9', 's-9-8', null, 'b:none']);
  });

  it('takes what comes behind a bare -- for no flags', () => {
    const { features } = readDockerfile('FROM a\nRUN --network=none -- --strange --mount=type=x\n');
    expect([...features.keys()]).toEqual(['RUN --network']);
  });

  it('takes an empty value for none where the operator has a colon', () => {
    const text = 'ARG E=\nFROM a${E:-1}${E-2}${E:+3}${E+4}${N:-5}${N-6}${N:+7}${N+8}\n';
    expect(readDockerfile(text).stages[0]!.base).toBe('a1456');
    expect(() => readDockerfile('ARG E=\nFROM a${E?x}\n')).not.toThrow();
    expect(() => readDockerfile('ARG E=\nFROM a${E:?give-E}\n')).toThrow('give-E');
  });

  it('asks for a secret that one of its mounts needs, whichever that is', () => {
    const mount = (more: string) => `RUN --mount=type=secret,id=k${more} true\n`;
    for (const mounts of [mount(',required=true') + mount(''), mount('') + mount(',required')]) {
      expect(readDockerfile(`FROM a\n${mounts}`).stages[0]!.secrets).toEqual([{ id: 'k', line: 2, required: true }]);
    }
  });

  it('gives a stage the variables of the one below it, as they are at its end', () => {
    const text = 'FROM a AS x\nENV V=1\nFROM x\nENV W=$V\nRUN --mount=type=secret,id=s-$V-$W true\nENV V=2\n';
    expect(readDockerfile(text).stages[1]!.secrets[0]!.id).toBe('s-1-1');
  });

  it('says what the builder must be able to do, and where', () => {
    const text = `# syntax=docker/dockerfile:1.7
# a comment
FROM debian
RUN --mount=type=secret,id=token --mount=type=secret,target=/run/secrets/npm --mount=type=cache,target=/c \\
    # a comment inside

    --network=none true
RUN --mount=type=secret,id=token,required=true --security=insecure true
COPY --link --chmod=755 --parents --exclude=*.md a b
ADD --checksum=sha256:00 --link=false https://example.invalid/x /x
COPY <<EOF <<-'TWO' /dir/
NOT AN INSTRUCTION
EOF
	FROM nothing
	TWO
RUN cat
`;
    const { syntax, features, stages } = readDockerfile(text);
    expect(syntax).toBe('docker/dockerfile:1.7');
    expect(Object.fromEntries(features)).toEqual({
      'RUN --mount': 4,
      'RUN --network': 4,
      'RUN --security': 8,
      'COPY --link': 9,
      'COPY --chmod': 9,
      'COPY --parents': 9,
      'COPY --exclude': 9,
      'ADD --checksum': 10,
      heredoc: 11,
    });
    expect(stages).toHaveLength(1);
    expect(stages[0]).toMatchObject({
      externalImages: ['debian'],
      secrets: [
        { id: 'token', line: 4, required: true },
        { id: 'npm', line: 4, required: false },
      ],
    });
    expect(readDockerfileFeatures(text.replace('FROM debian', 'FROM $NOT_GIVEN'))).toEqual(features);
  });

  it('takes a syntax line only in front', () => {
    expect(readDockerfile('# hello\n# syntax=x\nFROM a\n').syntax).toBeNull();
    expect(readDockerfile('# other=1\n# syntax=x\nFROM a\n').syntax).toBeNull();
    expect(readDockerfile('\uFEFF# escape=`\r\n#SYNTAX = x \r\nFROM a\r\n')).toMatchObject({
      syntax: 'x',
      escape: '`',
    });
  });

  it('continues lines with the character of the escape directive', () => {
    const { stages } = readDockerfile('# escape=`\nFROM `\n  windows\nRUN dir C:\\\nCOPY a b\n');
    expect(stages[0]?.base).toBe('windows');
  });

  it.each([
    ['', 1, 'no instructions'],
    ['# only a comment\n', 1, 'no instructions'],
    ['ARG A=1\n', 1, 'no FROM'],
    ['RUN true\nFROM a\n', 1, 'before the first FROM'],
    ['FROM a\n\nRNU true\n', 3, 'RNU'],
    ['FROM a\nCOPY --form=b x y\n', 2, '--form'],
    ['FROM a\nCOPY --from x y\n', 2, 'needs a value'],
    ['FROM a\nCOPY --link=maybe x y\n', 2, 'neither'],
    ['FROM a\nCOPY x\n', 2, 'destination'],
    ['FROM a\nCOPY --from=1 x y\n', 2, 'no earlier stage'],
    ['FROM a\nCOPY --from=0 x y\n', 2, 'no earlier stage'],
    ['FROM a\nCOPY --from=$X x y\n', 2, 'not replaced'],
    ['FROM a\nRUN --mount=type=sercet,id=x true\n', 2, 'sercet'],
    ['FROM a\nRUN --mount=type=secret true\n', 2, 'id'],
    ['FROM a\nRUN\n', 2, 'argument'],
    ['FROM\n', 1, 'argument'],
    ['FROM a b\n', 1, 'AS'],
    ['FROM a AS 9x\n', 1, 'name'],
    ['FROM $NOTHING\n', 1, 'empty'],
    ['FROM --platform=$NOTHING a\n', 1, 'platform'],
    ['FROM "a\n', 1, 'without its pair'],
    [`FROM ${'${A:-'.repeat(50_000)}\n`, 1, 'nested too deep'],
    ['FROM a:${V:?give-V}\n', 1, 'give-V'],
    ['FROM a:${V\n', 1, 'evaluated'],
    ['FROM a\nONBUILD FROM b\n', 2, 'ONBUILD'],
    ['FROM a\nONBUILD ONBUILD RUN x\n', 2, 'ONBUILD'],
    ['FROM a\nCOPY --toString x y\n', 2, 'unknown'],
    ['# escape=x\nFROM a\n', 1, 'escape'],
    ['FROM a\n\nCOPY <<A <<B /d/\nx\nA\n', 3, 'the here-document B'],
  ])('refuses %j with line %i', (text, line, words) => {
    let failure: unknown;
    try {
      readDockerfile(text, { fileName: 'some/Dockerfile' });
    } catch (error) {
      failure = error;
    }
    expect(isDecantError(failure, 'DOCKERFILE_INVALID')).toBe(true);
    expect(failure).toMatchObject({ details: { file: 'some/Dockerfile', line } });
    expect(String(failure)).toContain(words);
    expect(String(failure)).toContain(`some/Dockerfile, line ${line}`);
  });

  it.each([
    [
      'values that grow',
      `ARG A0=xx\n${Array.from({ length: 40 }, (_, n) => `ARG A${n + 1}=$A${n}$A${n}\n`).join('')}FROM a\n`,
      21,
    ],
    ['many stages', 'FROM a\n'.repeat(1001), 1001],
    ['much text', `FROM a\n${'#'.repeat(4 * 1024 * 1024 - 6)}`, 1],
  ])('bounds %s', (_, text, line) => {
    expect(() => readDockerfile(text)).toThrow(
      expect.objectContaining({ code: 'DOCKERFILE_INVALID', details: { file: 'Dockerfile', line } }),
    );
  });

  it('ends with a result or with DOCKERFILE_INVALID, whatever it is given', () => {
    const pieces = fc.constantFrom(
      'FROM ',
      'a',
      'RUN ',
      '--mount=',
      'type=secret,',
      '<<EOF',
      '\n',
      '\\',
      '$',
      '{',
      '}',
      '"',
      "'",
      '#',
      'ARG X',
      '=',
      ':-',
      ' ',
      'EOF',
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 40 }), (parts) => {
        try {
          readDockerfile(parts.join(''));
        } catch (error) {
          expect(isDecantError(error, 'DOCKERFILE_INVALID') ? '' : error).toBe('');
        }
      }),
      { numRuns: 500 },
    );
  });
});
