import { toDecantError } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { checkRequest } from './check-request.ts';
import type { BuilderCapabilities, BuildRequest } from './driver.ts';

const capabilities: BuilderCapabilities = {
  architecture: 'amd64',
  features: new Set(['RUN --mount'] as const),
  networks: ['default', 'host'],
  cacheModes: ['use', 'ignore', 'refresh'],
  secrets: true,
  cacheMounts: true,
  ownIgnoreFile: true,
  reproducible: true,
  outputs: ['docker-archive', 'oci-layout'],
  skipsUnusedStages: true,
  rootless: false,
};

function check(dockerfile: string, request: Partial<BuildRequest> = {}, can: Partial<BuilderCapabilities> = {}) {
  const bytes = new TextEncoder().encode(dockerfile);
  const context = { dockerfile: { displayPath: 'app/Dockerfile', bytes }, materialize: () => Promise.resolve() };
  return checkRequest('engine 1', { ...capabilities, ...can }, { context, workDirectory: '/nowhere', ...request });
}

describe('checkRequest', () => {
  it.each([
    ['a foreign platform', 'FROM a\n', { platform: 'linux/arm64' }, 'BUILD_PLATFORM_UNSUPPORTED', /linux\/arm64/],
    ['one in FROM', 'FROM a\nFROM --platform=linux/arm64 b\n', {}, 'BUILD_PLATFORM_UNSUPPORTED', /Dockerfile:2/],
    [
      'one by argument',
      'ARG P\nFROM --platform=$P b\n',
      { buildArgs: { P: 'linux/arm64' } },
      'BUILD_PLATFORM_UNSUPPORTED',
      /Dockerfile:2/,
    ],
    ['a here-document', 'FROM a\nRUN <<E\nx\nE\n', {}, 'DOCKERFILE_UNSUPPORTED', /Dockerfile:2 uses here-documents/],
    [
      'one with a descriptor',
      'FROM a\nRUN x 3<<E\nFROM x\nE\n',
      {},
      'DOCKERFILE_UNSUPPORTED',
      /Dockerfile:2 uses here-documents/,
    ],
    ['a flag', 'FROM a\n\nCOPY --link a b\n', {}, 'DOCKERFILE_UNSUPPORTED', /Dockerfile:3 uses COPY --link/],
    [
      'a flag in a stage that is not built',
      'FROM a\nCOPY --link a b\nFROM b\n',
      {},
      'DOCKERFILE_UNSUPPORTED',
      /Dockerfile:2/,
    ],
    ['an unknown instruction', 'FROM a\nRUNN x\n', {}, 'DOCKERFILE_INVALID', /Dockerfile, line 2.*RUNN/],
    ['another front end', '# syntax=my/front:1\nFROM a\n', {}, 'DOCKERFILE_UNSUPPORTED', /my\/front:1/],
    ['a network mode', 'FROM a\n', { network: 'none' }, 'USAGE', /network mode none/],
    ['an unknown stage', 'FROM a AS one\n', { target: 'two' }, 'USAGE', /no stage named "two"/],
    ['a stage number too high', 'FROM a AS one\n', { target: '1' }, 'USAGE', /no stage named "1"/],
    [
      'a login for what is no registry',
      'FROM a\n',
      { auth: { 'a/b': { username: 'a', password: 'b' } } },
      'USAGE',
      /registry/,
    ],
    ['a missing secret', 'FROM a\nRUN --mount=type=secret,id=k x\n', {}, 'USAGE', /secret k/],
  ] as const)('refuses %s', (_, dockerfile, request, code, message) => {
    expect(() => check(dockerfile, request)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });

  it.each([
    ['the own platform', 'FROM --platform=linux/x86_64 a\n', { platform: 'linux/amd64' }],
    ['a platform by variable', 'FROM --platform=$BUILDPLATFORM a\n', {}],
    ['stages by name in any case and by number', 'FROM a AS One\n', { target: 'one' }],
    ['a stage number', 'FROM a AS One\n', { target: '0' }],
    ['a secret that is given', 'FROM a\nRUN --mount=type=secret,id=k x\n', { secrets: [{ id: 'k', file: '/k' }] }],
    ['the platform of an argument', 'ARG P=linux/arm64\nFROM --platform=$P a\n', { buildArgs: { P: 'linux/amd64' } }],
    ['predefined arguments', 'FROM a\n', { buildArgs: { HTTP_PROXY: 'x', no_proxy: 'y', BUILDKIT_INLINE_CACHE: '1' } }],
  ] as const)('takes %s', (_, dockerfile, request) => {
    expect(check(dockerfile, request)).toEqual([]);
  });

  it('refuses secrets and equal ids where the engine has neither', () => {
    const secrets = [{ id: 'k', value: 'v' }];
    expect(() => check('FROM a\n', { secrets }, { secrets: false })).toThrow(/cannot give secrets/);
    expect(check('FROM a\n', { secrets })).toEqual([]);
    expect(() => check('FROM a\n', { reproducible: true }, { reproducible: false })).toThrow(/equal image ids/);
    expect(check('FROM a\n', { reproducible: true })).toEqual([]);
  });

  it('looks for platforms and secrets in the stages that run', () => {
    const text =
      'FROM a AS one\nRUN --mount=type=secret,id=k x\nFROM --platform=linux/arm64 b AS two\nFROM one AS three\nFROM c\n';
    const all = { skipsUnusedStages: false };
    const said = (target?: string, can?: Partial<BuilderCapabilities>) => {
      try {
        check(text, { target }, can);
        return 'fine';
      } catch (error) {
        return toDecantError(error).message;
      }
    };
    expect(said()).toBe('fine');
    expect(said('three')).toContain('Dockerfile:2 mounts the secret k');
    expect(said(undefined, all)).toContain('Dockerfile:3');
    expect(said('one', all)).toContain('Dockerfile:2 mounts the secret k');
  });

  it('warns of arguments that nothing declares and of a syntax line', () => {
    const warnings = check('# syntax=docker/dockerfile:1.4\nFROM a\nARG KNOWN\n', {
      buildArgs: { KNOWN: '1', TYPO: '2' },
    });
    expect(warnings.map(({ message }) => message)).toEqual([
      expect.stringContaining('syntax=docker/dockerfile:1.4'),
      expect.stringContaining('TYPO'),
    ]);
  });
});
