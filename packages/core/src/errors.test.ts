import { describe, expect, it, vi } from 'vitest';

import { ERROR_CODES, exitStatusOf, familyOf, httpStatusOf, isErrorCode, type ErrorCode } from './error-codes.ts';
import { DecantError, errnoOf, isDecantError, maskSecrets, toDecantError } from './errors.ts';

describe('DecantError', () => {
  it('is recognised across two copies of the package', async () => {
    vi.resetModules();
    const other = await import('./errors.ts');
    expect(other.DecantError).not.toBe(DecantError);
    const foreign = new other.DecantError('NOT_FOUND', 'There is no such thing.');
    expect(foreign instanceof DecantError).toBe(true);
    expect(isDecantError(foreign, 'NOT_FOUND')).toBe(true);
    expect(isDecantError(foreign, 'CONFLICT')).toBe(false);
    expect(toDecantError(foreign)).toBe(foreign);
  });

  it.each([undefined, null, 'NOT_FOUND', 7, {}, new Error('x'), { code: 'NOT_FOUND', name: 'DecantError' }])(
    'does not recognise %s',
    (value) => {
      expect(isDecantError(value)).toBe(false);
      expect((value as unknown) instanceof DecantError).toBe(false);
    },
  );

  it('is retryable by its family, unless told otherwise', () => {
    expect(new DecantError('HTTP_UNREACHABLE', 'x').retryable).toBe(true);
    expect(new DecantError('HTTP_UNREACHABLE', 'x', { retryable: false }).retryable).toBe(false);
    expect(new DecantError('NOT_FOUND', 'x').retryable).toBe(false);
    expect(new DecantError('BUILD_ENGINE_MISSING', 'x').retryable).toBe(false);
  });

  it('keeps its cause, its hint and a stack', () => {
    const cause = new Error('below');
    const error = new DecantError('INTERNAL', 'above', { cause, hint: 'Tell us.' });
    expect(error.cause).toBe(cause);
    expect(error.hint).toBe('Tell us.');
    expect(error.stack).toContain('above');
    expect('cause' in new DecantError('INTERNAL', 'x')).toBe(false);
  });
});

describe('maskSecrets', () => {
  it('cuts values under secret-looking keys at any depth, and leaves the others', () => {
    const masked = maskSecrets({
      apiKey: 'abcdefghij',
      'api-key': 'abcdefghij',
      list: [{ Authorization: 'Bearer abcdef' }],
      nested: { password: 'hunter22', user: 'me' },
      bytes: new Uint8Array([1]),
      count: 3,
      nothing: null,
    });
    expect(masked).toEqual({
      apiKey: 'abcd…',
      'api-key': 'abcd…',
      list: [{ Authorization: 'Bear…' }],
      nested: { password: 'hunt…', user: 'me' },
      bytes: new Uint8Array([1]),
      count: 3,
      nothing: null,
    });
  });

  it('takes the query off signed URLs, wherever they stand in a text', () => {
    const url = 'https://h.example/b/k?partNumber=1&X-Amz-Signature=0123456789';
    const error = new DecantError('HTTP_STATUS', 'x', {
      details: { text: `PUT ${url} failed`, plain: 'http://h/?a=b' },
    });
    expect(error.details).toEqual({ text: 'PUT https://h.example/b/k?… failed', plain: 'http://h/?a=b' });
  });

  it('does not change what it was given, and survives a cycle', () => {
    const details: Record<string, unknown> = { token: 'abcdefgh' };
    details['self'] = details;
    expect(maskSecrets(details)['token']).toBe('abcd…');
    expect(details['token']).toBe('abcdefgh');
  });
});

describe('toDecantError', () => {
  it('advises by its code where its author does not, and not for every code', () => {
    expect(new DecantError('LAYER_INVALID', 'x').hint).toMatch(/^Get the archive again/);
    expect(new DecantError('LAYER_INVALID', 'x', { hint: 'Better.' }).hint).toBe('Better.');
    expect(new DecantError('INTERNAL', 'x').hint).toBeUndefined();
  });

  it('turns a full disk into DISK_FULL with a hint', () => {
    const error = toDecantError(Object.assign(new Error('write'), { code: 'ENOSPC' }));
    expect(error.code).toBe('DISK_FULL');
    expect(error.hint).toBeDefined();
  });

  it('keeps a foreign error as the cause, under the code asked for', () => {
    const cause = new Error('boom');
    const error = toDecantError(cause, 'BUILD_FAILED');
    expect([error.code, error.message, error.cause]).toEqual(['BUILD_FAILED', 'boom', cause]);
    expect(toDecantError('text').message).toBe('text');
  });

  it('knows system errors from other codes', () => {
    expect(errnoOf(Object.assign(new Error(), { code: 'ENOENT' }))).toBe('ENOENT');
    expect(errnoOf(Object.assign(new Error(), { code: 'ERR_INVALID_ARG_TYPE' }))).toBeUndefined();
    expect(errnoOf(undefined)).toBeUndefined();
    expect(errnoOf({ code: 5 })).toBeUndefined();
  });
});

describe('ERROR_CODES', () => {
  const codes = Object.keys(ERROR_CODES) as ErrorCode[];

  it.each(codes)('%s has a sentence, an exit status and an HTTP status', (code) => {
    expect(code).toMatch(/^[A-Z]+(?:_[A-Z0-9]+)*$/);
    expect(ERROR_CODES[code].meaning).toMatch(/^[A-Z].*\.$/);
    expect(exitStatusOf(code)).toBeGreaterThan(0);
    expect(httpStatusOf(code)).toBeGreaterThanOrEqual(400);
    expect(isErrorCode(code)).toBe(true);
  });

  it('maps families to the exit statuses of the command line', () => {
    const sample = {
      USAGE: 2,
      UNAUTHORIZED: 3,
      NOT_FOUND: 4,
      BUILD_FAILED: 5,
      CAS_CHUNK_MISMATCH: 6,
      TIMEOUT: 7,
    } as const;
    for (const [code, status] of Object.entries(sample)) expect(exitStatusOf(code as ErrorCode)).toBe(status);
    expect(exitStatusOf('INTERNAL')).toBe(1);
    expect(httpStatusOf('UNAUTHORIZED')).toBe(401);
    expect(httpStatusOf('FORBIDDEN')).toBe(403);
    expect(familyOf('CONFLICT')).toBe('conflict');
  });

  it('does not take inherited names for codes', () => {
    expect(isErrorCode('toString')).toBe(false);
    expect(isErrorCode('__proto__')).toBe(false);
  });
});
