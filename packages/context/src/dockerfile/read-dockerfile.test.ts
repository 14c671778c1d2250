import { isDecantError } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { readDockerfile } from './read-dockerfile.ts';

describe('readDockerfile', () => {
  it('lists stages, their bases and the images that come from outside', () => {
    const { stages, requirements } = readDockerfile(`ARG VERSION=1.0
ARG REPO
FROM --platform=$BUILDPLATFORM golang:\${VERSION} AS Build
COPY --from=docker.io/library/tools:2 /x /x
FROM \${REPO:-debian}:12
COPY --from=build /x /x
COPY --from=0 /y /y
RUN --mount=type=bind,from=cache:1,target=/c true
FROM build
FROM scratch
`);
    expect(stages).toEqual([
      { index: 0, name: 'build', base: 'golang:1.0', baseStage: null, platform: 'linux/amd64', line: 3 },
      { index: 1, name: null, base: 'debian:12', baseStage: null, platform: null, line: 5 },
      { index: 2, name: null, base: 'build', baseStage: 0, platform: null, line: 9 },
      { index: 3, name: null, base: 'scratch', baseStage: null, platform: null, line: 10 },
    ]);
    expect(requirements.externalImages).toEqual(['golang:1.0', 'docker.io/library/tools:2', 'debian:12', 'cache:1']);
    expect(requirements.platforms).toEqual(['linux/amd64']);
  });

  it('prefers build arguments to defaults and keeps both scopes of ARG apart', () => {
    const text = 'ARG V=1\nFROM a:$V\nARG V\nARG W=2\nRUN --mount=type=secret,id=s-$V-$W true\nFROM b:${W:-none}\n';
    expect(readDockerfile(text).requirements).toMatchObject({ externalImages: ['a:1', 'b:none'], secrets: ['s-1-2'] });
    const { requirements } = readDockerfile(text, { buildArgs: { V: '9', W: '8', toString: 'x' } });
    expect(requirements).toMatchObject({ externalImages: ['a:9', 'b:none'], secrets: ['s-9-8'] });
  });

  it('says what the builder must be able to do', () => {
    const { requirements } = readDockerfile(`# syntax=docker/dockerfile:1.7
# a comment
FROM debian
RUN --mount=type=secret,id=token,required=true --mount=type=secret,target=/run/secrets/npm --mount=type=cache,target=/c \\
    # a comment inside
    --network=none true
RUN --mount=type=ssh --mount=type=tmpfs,target=/t --security=insecure true
COPY --link --chmod=755 --parents --exclude=*.md a b
ADD --checksum=sha256:00 --link=false https://example.invalid/x /x
COPY <<EOF <<-'TWO' /dir/
NOT AN INSTRUCTION
EOF
	FROM nothing
	TWO
RUN cat
`);
    expect(requirements).toMatchObject({
      syntax: 'docker/dockerfile:1.7',
      heredoc: true,
      secrets: ['token', 'npm'],
      requiredSecrets: ['token'],
      cacheMounts: true,
      bindMounts: false,
      sshMounts: true,
      tmpfsMounts: true,
      insecure: true,
      networks: ['none'],
      copyLink: true,
      copyChmod: true,
      copyParents: true,
      copyExclude: true,
      addChecksum: true,
      externalImages: ['debian'],
    });
  });

  it('takes a syntax line only in front, and a here-string for no here-document', () => {
    expect(readDockerfile('# hello\n# syntax=x\nFROM a\nRUN cat <<< word\n').requirements).toMatchObject({
      syntax: null,
      heredoc: false,
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
    ['FROM a\nCOPY --from=$X x y\n', 2, 'not replaced'],
    ['FROM a\nRUN --mount=type=sercet,id=x true\n', 2, 'sercet'],
    ['FROM a\nRUN --mount=type=secret true\n', 2, 'id'],
    ['FROM a\nRUN\n', 2, 'argument'],
    ['FROM\n', 1, 'argument'],
    ['FROM a b\n', 1, 'AS'],
    ['FROM a AS 9x\n', 1, 'name'],
    ['FROM $NOTHING\n', 1, 'empty'],
    ['FROM a:${V:?give-V}\n', 1, 'give-V'],
    ['FROM a:${V\n', 1, 'evaluated'],
    ['FROM a\nONBUILD FROM b\n', 2, 'ONBUILD'],
    ['# escape=x\nFROM a\n', 1, 'escape'],
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
