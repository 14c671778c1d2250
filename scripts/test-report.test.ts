import { describe, expect, it } from 'vitest';

import { backendsOf, closingLine, requiredBackends, summarize, type TestOutcome } from './test-report.ts';

const test = (fullName: string, state: TestOutcome['state'], note?: string): TestOutcome => ({ fullName, state, note });

describe('summarize', () => {
  it('counts tests and names the backends that ran', () => {
    const tests = [
      test('plain', 'passed'),
      test('[backend:docker] build > a', 'passed'),
      test('[backend:docker] build > b', 'failed'),
      test('[backend:docker] build > c', 'skipped', 'no buildx'),
      test('[backend:umoci] flatten > d', 'skipped'),
    ];
    const summary = summarize({ tests, otherFailures: [] }, [], { umoci: 'not installed: umoci' });
    expect(closingLine(summary)).toBe('2 passed, 1 failed, 2 skipped');
    expect(summary.lines).toEqual([
      'Real backends in this run:',
      '  docker: 2 ran, 1 skipped: no buildx',
      '  umoci: not used, 1 skipped: not installed: umoci',
    ]);
  });

  it('fails for a required backend that was skipped, and for one that no test names', () => {
    const tests = [test('[backend:umoci] x', 'skipped'), test('[backend:docker] x', 'passed')];
    const summary = summarize({ tests, otherFailures: [] }, ['docker', 'qemu', 'umoci']);
    expect(summary.failed).toBe(2);
    expect(summary.lines).toContain('  qemu: REQUIRED, but no test of it was found');
    expect(summary.lines).toContain('  umoci: REQUIRED, but 1 skipped');
    expect(summary.lines).toContain('  docker: 1 ran');
  });

  it('counts files that could not be loaded', () => {
    const summary = summarize({ tests: [], otherFailures: ['a.test.ts: no such module'] }, []);
    expect(closingLine(summary)).toBe('0 passed, 1 failed, 0 skipped');
    expect(summary.lines).toEqual(['Failed outside of a test: a.test.ts: no such module']);
  });
});

describe('backendsOf', () => {
  it('finds every mark once', () => {
    expect(backendsOf('[backend:erofs-utils] a > [backend:qemu] b [backend:qemu]')).toEqual(['erofs-utils', 'qemu']);
    expect(backendsOf('backend:none, [backend:], [backend:A]')).toEqual([]);
  });
});

describe('requiredBackends', () => {
  const listed = () => 'docker # the engine\n\numoci\n';

  it.each([
    [{}, []],
    [{ CI: 'true' }, ['docker', 'umoci']],
    [{ CI: 'false' }, []],
    [{ DECANT_REQUIRE: 'qemu, docker,qemu' }, ['qemu', 'docker']],
    [{ CI: 'true', DECANT_REQUIRE: 'qemu' }, ['qemu']],
    [{ CI: 'true', DECANT_REQUIRE: '' }, []],
  ])('reads %j', (env, expected) => {
    expect(requiredBackends(env, listed)).toEqual(expected);
  });
});
