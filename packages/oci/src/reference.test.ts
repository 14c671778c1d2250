import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { formatReference, parseReference } from './reference.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

describe('parseReference', () => {
  it.each([
    ['debian', 'docker.io/library/debian:latest'],
    ['debian:12', 'docker.io/library/debian:12'],
    ['me/app', 'docker.io/me/app:latest'],
    ['docker.io/debian', 'docker.io/library/debian:latest'],
    ['index.docker.io/debian:1', 'docker.io/library/debian:1'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app', 'localhost:5000/app:latest'],
    ['host:5000/a/b__c/d---e:T.g_1', 'host:5000/a/b__c/d---e:T.g_1'],
    ['ghcr.io/a/b', 'ghcr.io/a/b:latest'],
    ['Host/a', 'Host/a:latest'],
    ['[::1]:5000/a:b', '[::1]:5000/a:b'],
    [`debian@${DIGEST}`, `docker.io/library/debian@${DIGEST}`],
    [`h.io/a:b@${DIGEST}`, `h.io/a:b@${DIGEST}`],
  ])('reads %s as %s', (text, full) => {
    expect(formatReference(parseReference(text))).toBe(full);
  });

  it.each([
    ...['', ':', '/', 'a//b', '/a', 'a/', 'a:', 'a:b:c', 'A', 'a/B', '-a', 'a-', 'a..b', 'a___b', 'a b', 'a\n', 'ä'],
    ...['host.io/', 'host..io/a', 'h.io:x/a', 'h.io:99999/a', `a:${'t'.repeat(129)}`, 'a:.t', 'a:é', '../a', 'a/../b'],
    ...['user:pass@h.io/a', 'h.io/a?x', 'h.io/a#x', '[::1/a', '[zz]/a', 'x'.repeat(256), 'a'.repeat(100_000)],
  ])('refuses %j', (text) => {
    expect(() => parseReference(text)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/NAME_INVALID|OCI_INVALID/) }),
    );
  });

  it('refuses digests that are not sha256 or malformed', () => {
    expect(() => parseReference(`a@sha512:${'a'.repeat(128)}`)).toThrow(
      expect.objectContaining({ code: 'OCI_UNSUPPORTED' }),
    );
    expect(() => parseReference('a@sha256:00')).toThrow(expect.objectContaining({ code: 'OCI_INVALID' }));
  });

  it('reads what it writes, and whatever it reads survives writing', () => {
    const part = fc.stringMatching(/^[a-z0-9]{1,6}([._-][a-z0-9]{1,4})?$/);
    const registry = fc.constantFrom(
      'docker.io',
      'localhost',
      'localhost:5000',
      'a.example',
      '[::1]:80',
      '10.0.0.1:443',
    );
    const tag = fc.option(fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/), { nil: undefined });
    const whole = fc.record({
      registry,
      path: fc.array(part, { minLength: 2, maxLength: 4 }),
      tag,
      digest: fc.constantFrom(undefined, DIGEST),
    });
    fc.assert(
      fc.property(whole, ({ path, ...rest }) => {
        const reference = { ...rest, repository: path.join('/') };
        const expected =
          rest.tag === undefined && rest.digest === undefined ? { ...reference, tag: 'latest' } : reference;
        expect(parseReference(formatReference(reference))).toEqual(expected);
      }),
    );
    const noise = fc.string({ unit: fc.constantFrom(...'aZ0.:/@-_[]'), maxLength: 30 });
    fc.assert(
      fc.property(noise, (text) => {
        let reference;
        try {
          reference = parseReference(text);
        } catch (error) {
          expect(error).toMatchObject({ code: expect.stringMatching(/^(NAME_INVALID|OCI_INVALID|OCI_UNSUPPORTED)$/) });
          return;
        }
        expect(parseReference(formatReference(reference))).toEqual(reference);
      }),
      { numRuns: 500 },
    );
  });
});
