import { AwsV4Signer } from 'aws4fetch';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { encodeKey } from './object-key.ts';
import { MAX_EXPIRES_SECONDS, presignUrl, verifyPresigned } from './sigv4.ts';

const credentials = { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' };
const region = 'us-east-1';
const at = Date.UTC(2026, 10, 22, 12, 0, 0);
const now = () => at;
const lookupSecret = (id: string) => (id === credentials.accessKeyId ? credentials.secretAccessKey : undefined);
const sign = (url: string, method = 'GET', expiresSeconds = 3600) =>
  presignUrl({ method, url, credentials, region, expiresSeconds, now });
const verify = (url: string, method = 'GET', clock = now) =>
  verifyPresigned({ method, url }, { lookupSecret, region, now: clock });
const code = (expected: string) => expect.objectContaining({ code: expected });

const keyCharacters = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
  .filter((text) => text.isWellFormed() && !['.', '..'].includes(text));
const parameters = fc.dictionary(
  fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 8 })
    .filter((name) => name.isWellFormed() && !/^x-amz/i.test(name)),
  fc.string({ unit: 'grapheme', maxLength: 12 }).filter((value) => value.isWellFormed()),
  { maxKeys: 4 },
);

describe('presignUrl', () => {
  it('makes the signature of the example in the S3 API reference', () => {
    const url = presignUrl({
      method: 'GET',
      url: 'https://examplebucket.s3.amazonaws.com/test.txt',
      credentials: { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
      region,
      expiresSeconds: 86_400,
      now: () => Date.UTC(2013, 4, 24),
    });
    expect(url).toContain('X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404');
  });

  it('signs as aws4fetch does', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(keyCharacters, { minLength: 1, maxLength: 4 }),
        parameters,
        fc.constantFrom('GET', 'PUT', 'POST', 'DELETE', 'HEAD'),
        fc.constantFrom('https://host.example', 'http://127.0.0.1:9000/bucket'),
        async (key, query, method, base) => {
          const url = `${base}/${encodeKey(key.join('/'))}?${new URLSearchParams(query).toString()}`;
          const withExpiry = new URL(url);
          withExpiry.searchParams.set('X-Amz-Expires', '3600');
          const oracle = new AwsV4Signer({
            method,
            url: withExpiry.href,
            ...credentials,
            region,
            service: 's3',
            signQuery: true,
            datetime: '20261122T120000Z',
          });
          const expected = (await oracle.sign()).url.searchParams.get('X-Amz-Signature');
          expect(new URL(sign(url, method)).searchParams.get('X-Amz-Signature')).toBe(expected);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('refuses a life time that S3 would', () => {
    for (const seconds of [0, -1, 1.5, MAX_EXPIRES_SECONDS + 1, Number.NaN]) {
      expect(() => sign('https://h/k', 'GET', seconds)).toThrow(RangeError);
    }
  });
});

describe('verifyPresigned', () => {
  it('accepts what was signed, and nothing with one character changed', async () => {
    await fc.assert(
      fc.asyncProperty(keyCharacters, parameters, fc.nat(), async (key, query, seed) => {
        const url = sign(`https://host.example/${encodeKey(key)}?${new URLSearchParams(query).toString()}`, 'PUT');
        expect(await verify(url, 'PUT')).toEqual({ accessKeyId: 'AKIDEXAMPLE', expiresAtMs: at + 3_600_000 });
        const start = 'https://'.length;
        const index = start + (seed % (url.length - start));
        const changed = `${url.slice(0, index)}${url[index] === '7' ? '8' : '7'}${url.slice(index + 1)}`;
        fc.pre(URL.canParse(changed));
        await expect(verify(changed, 'PUT')).rejects.toEqual(code('SIGN_URL_INVALID'));
      }),
      { numRuns: 200 },
    );
  });

  const good = sign('https://host.example/objects/ns/a/k?partNumber=3&uploadId=abc', 'PUT');
  const edit = (change: (url: URL) => void) => {
    const url = new URL(good);
    change(url);
    return url.href;
  };
  const tampered: [string, string][] = [
    ['host', edit((url) => (url.host = 'other.example'))],
    ['port', edit((url) => (url.port = '8443'))],
    ['path', edit((url) => (url.pathname = '/objects/ns/b/k'))],
    ['path with a slash more', edit((url) => (url.pathname = '/objects//ns/a/k'))],
    ['path with an encoded slash', good.replace('ns/a', 'ns%2Fa')],
    ['path that is not UTF-8', good.replace('ns/a', 'ns/%ff')],
    ['part number', edit((url) => url.searchParams.set('partNumber', '4'))],
    ['part number twice', edit((url) => url.searchParams.append('partNumber', '4'))],
    ['missing parameter', edit((url) => url.searchParams.delete('uploadId'))],
    ['parameter more', edit((url) => url.searchParams.append('acl', ''))],
    ['expiry', edit((url) => url.searchParams.set('X-Amz-Expires', '604800'))],
    ['expiry beyond seven days', edit((url) => url.searchParams.set('X-Amz-Expires', '604801'))],
    ['expiry that is no number', edit((url) => url.searchParams.set('X-Amz-Expires', '1e9'))],
    ['date', edit((url) => url.searchParams.set('X-Amz-Date', '20261122T130000Z'))],
    ['date that is none', edit((url) => url.searchParams.set('X-Amz-Date', '20261399T999999Z'))],
    ['region', good.replace('us-east-1', 'us-east-2')],
    ['access key', good.replace('AKIDEXAMPLE', 'AKIDEXAMPLF')],
    ['no access key', good.replace('AKIDEXAMPLE', '')],
    ['signed headers', edit((url) => url.searchParams.set('X-Amz-SignedHeaders', 'host;range'))],
    ['algorithm', edit((url) => url.searchParams.set('X-Amz-Algorithm', 'none'))],
    ['empty signature', edit((url) => url.searchParams.set('X-Amz-Signature', ''))],
    ['two signatures', `${good}&X-Amz-Signature=00`],
    ['no signature', 'https://host.example/objects/ns/a/k'],
  ];
  it.each(tampered)('refuses another %s', async (_, url) => {
    await expect(verify(url, 'PUT')).rejects.toEqual(code('SIGN_URL_INVALID'));
  });

  it('refuses another method and another secret', async () => {
    for (const method of ['GET', 'POST', 'DELETE', 'HEAD']) {
      await expect(verify(good, method)).rejects.toEqual(code('SIGN_URL_INVALID'));
    }
    const other = { lookupSecret: () => 'another secret', region, now };
    await expect(verifyPresigned({ method: 'PUT', url: good }, other)).rejects.toEqual(code('SIGN_URL_INVALID'));
  });

  it('is exact about time', async () => {
    await expect(verify(good, 'PUT', () => at + 3_599_999)).resolves.toBeDefined();
    await expect(verify(good, 'PUT', () => at + 3_600_000)).rejects.toEqual(code('SIGN_URL_EXPIRED'));
    await expect(verify(good, 'PUT', () => at - 900_000)).resolves.toBeDefined();
    await expect(verify(good, 'PUT', () => at - 900_001)).rejects.toEqual(code('SIGN_URL_INVALID'));
  });

  it('does not say of a forged URL that it has expired', async () => {
    const forged = good.replace('partNumber=3', 'partNumber=4');
    await expect(verify(forged, 'PUT', () => at + 9_999_999)).rejects.toEqual(code('SIGN_URL_INVALID'));
  });
});
