import { type BlobSignRequest, PART_BYTES, type SignedGet, type SignedMultipart } from '@decant/core';
import { beforeEach, describe, expect, it } from 'vitest';

import { createMemoryObjectStore } from './memory-store.ts';
import { createBlobSigner, type BlobSigner } from './signer.ts';

const credentials = { accessKeyId: 'AK', secretAccessKey: 'secret' };
const at = Date.UTC(2026, 10, 22, 12, 0, 0, 500);
const namespacePrefix = 'ns/acme/staging/';
const code = (expected: string) => expect.objectContaining({ code: expected });

const put = (path: string, hint?: { max_parts: number; part_size_bytes: number }): BlobSignRequest => ({
  target: { kind: 'artifact', rel_path: path },
  op: { kind: 'put_artifact', ...(hint === undefined ? {} : { multipart_hint: hint }) },
});
const get = (uri: string): BlobSignRequest => ({ target: { kind: 'blob', uri }, op: { kind: 'get_blob' } });

describe('createBlobSigner', () => {
  let store: ReturnType<typeof createMemoryObjectStore>;
  let signer: BlobSigner;
  beforeEach(() => {
    store = createMemoryObjectStore();
    signer = createBlobSigner({
      store,
      credentials,
      region: 'local',
      bucket: 'main',
      publicBaseUrl: 'https://h.example/objects/',
      maxPartBytes: PART_BYTES,
      now: () => at,
    });
  });

  it('composes the URI and signs each part, completion and abort', async () => {
    const request = put('ns/acme/staging/b1/pack 1', { max_parts: 3, part_size_bytes: 1000 });
    const signed = (await signer.sign({ namespacePrefix, request })) as SignedMultipart;
    expect(signed).toMatchObject({
      kind: 's3_multipart',
      uri: 'decant://main/ns/acme/staging/b1/pack 1',
      partSizeBytes: 1000,
      expiresAt: '2026-11-23T12:00:00.000Z',
    });
    const base = 'https://h.example/objects/ns/acme/staging/b1/pack%201?';
    for (const url of [...signed.partUrls, signed.completeUrl, signed.abortUrl])
      expect(url.startsWith(base)).toBe(true);
    expect(signed.partUrls.map((url) => new URL(url).searchParams.get('partNumber'))).toEqual(['1', '2', '3']);
    expect(new URL(signed.completeUrl).searchParams.get('uploadId')).toBe(signed.uploadId);
    expect(new Set([...signed.partUrls, signed.completeUrl, signed.abortUrl]).size).toBe(5);
    expect(signer.keyOfUri(signed.uri)).toBe('ns/acme/staging/b1/pack 1');
    expect(signer.uriOfKey('ns/acme/staging/b1/pack 1')).toBe(signed.uri);
  });

  it('signs 160 parts of 64 MiB without a hint, and 10,000 with one', async () => {
    const some = (await signer.sign({ namespacePrefix, request: put(`${namespacePrefix}a`) })) as SignedMultipart;
    expect([some.partUrls.length, some.partSizeBytes]).toEqual([160, PART_BYTES]);
    const hint = { max_parts: 10_000, part_size_bytes: PART_BYTES };
    const most = (await signer.sign({ namespacePrefix, request: put(`${namespacePrefix}a`, hint) })) as SignedMultipart;
    expect(most.partUrls.length).toBe(10_000);
    const tooMany = put(`${namespacePrefix}a`, { ...hint, max_parts: 10_001 });
    await expect(signer.sign({ namespacePrefix, request: tooMany })).rejects.toEqual(code('LIMIT_EXCEEDED'));
    const tooLarge = put(`${namespacePrefix}a`, { max_parts: 1, part_size_bytes: PART_BYTES + 1 });
    await expect(signer.sign({ namespacePrefix, request: tooLarge })).rejects.toEqual(code('LIMIT_EXCEEDED'));
  });

  const escapes = [
    'ns/other/staging/x',
    'ns/acme/stagingx/x',
    'ns/acme/staging',
    'ns/acme/staging/',
    '/ns/acme/staging/x',
    'ns/acme/staging/../../other/x',
    'ns/acme/staging/./x',
    'ns/acme/staging//x',
    'ns/acme/staging/x/',
    'ns/acme/staging/x\\..\\y',
    'ns/acme/staging/\0',
    'ns/acme/staging/a\nb',
    'ns/acme/staging/\ud800',
    `ns/acme/staging/${'é'.repeat(520)}`,
    'NS/acme/staging/x',
  ];
  it.each(escapes)('does not sign the path %j', async (path) => {
    await expect(signer.sign({ namespacePrefix, request: put(path) })).rejects.toEqual(code('SIGN_PATH_FORBIDDEN'));
    const request = get(`decant://main/${path}`);
    await expect(signer.sign({ namespacePrefix, request })).rejects.toEqual(code('SIGN_PATH_FORBIDDEN'));
  });

  it('signs a read of an object of the caller', async () => {
    await store.put(`${namespacePrefix}x`, new Uint8Array(3));
    const signed = await signer.sign({ namespacePrefix, request: get(`decant://main/${namespacePrefix}x`) });
    expect(signed).toMatchObject({
      kind: 'single_get',
      method: 'GET',
      headers: {},
      expiresAt: '2026-11-22T13:00:00.000Z',
    });
    // What a URL says of its life is what the answer says.
    const lifeOf = (url: string) => new URL(url).searchParams.get('X-Amz-Expires');
    expect(lifeOf((signed as SignedGet).url)).toBe('3600');
    const upload = (await signer.sign({ namespacePrefix, request: put(`${namespacePrefix}x`) })) as SignedMultipart;
    const urls = [upload.partUrls[0]!, upload.completeUrl, upload.abortUrl];
    expect(urls.map(lifeOf)).toEqual(['86400', '86400', '86400']);
    const request = get(`decant://main/${namespacePrefix}none`);
    await expect(signer.sign({ namespacePrefix, request })).rejects.toEqual(code('OBJECT_NOT_FOUND'));
  });

  it.each(['s3://main/', 'decant://other/', 'decant://mainx/', 'file:///', 'DECANT://main/', '//main/', ''])(
    'does not know URIs of %j',
    async (start) => {
      await store.put(`${namespacePrefix}x`, new Uint8Array(3));
      const request = get(`${start}${namespacePrefix}x`);
      await expect(signer.sign({ namespacePrefix, request })).rejects.toEqual(code('SIGN_PATH_FORBIDDEN'));
      expect(() => signer.keyOfUri(`${start}${namespacePrefix}x`)).toThrow();
    },
  );

  it('signs neither the read of an artifact nor the write of a blob', async () => {
    const read = { target: put(`${namespacePrefix}x`).target, op: { kind: 'get_blob' } } as const;
    const write = { target: get(`decant://main/${namespacePrefix}x`).target, op: { kind: 'put_artifact' } } as const;
    await expect(signer.sign({ namespacePrefix, request: read })).rejects.toEqual(code('USAGE'));
    await expect(signer.sign({ namespacePrefix, request: write })).rejects.toEqual(code('USAGE'));
  });

  it('insists on a prefix that ends in a slash', async () => {
    await expect(signer.sign({ namespacePrefix: 'ns/acme', request: put('ns/acme2/x') })).rejects.toThrow(RangeError);
  });

  it('refuses configuration that cannot work', () => {
    const base = { store, credentials, region: 'r', bucket: 'b', publicBaseUrl: 'http://h/o' };
    expect(() => createBlobSigner({ ...base, bucket: 'a/b' })).toThrow(code('CONFIG_INVALID') as never);
    expect(() => createBlobSigner({ ...base, uploadExpiresSeconds: 604_801 })).toThrow(code('CONFIG_INVALID') as never);
  });
});
