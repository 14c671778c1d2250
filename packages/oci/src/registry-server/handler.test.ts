import { DecantError } from '@decant/core';
import { beforeEach, describe, expect, it } from 'vitest';

import { digestOf } from '../testing/make-layout.ts';
import { MemoryStore } from '../testing/memory-store.ts';
import { createRegistryHandler, type RegistryHandler, type RegistryHandlerOptions } from './handler.ts';

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const BLOB = Buffer.from('the bytes of a blob');
const DIGEST = digestOf(BLOB);

let store: MemoryStore;
let handler: RegistryHandler;
const open = (options: Partial<RegistryHandlerOptions> = {}) => {
  handler = createRegistryHandler({ store, ...options });
};
beforeEach(() => {
  store = new MemoryStore();
  open();
});

async function call(method: string, path: string, body?: string | Uint8Array, headers: Record<string, string> = {}) {
  const content = body === undefined ? {} : { body: typeof body === 'string' ? body : new Uint8Array(body) };
  const response = await handler(new Request(`http://h${path}`, { method, headers, ...content }));
  const text = await response.text();
  const code = /^\{"errors":\[\{"code":"(\w+)"/.exec(text)?.[1];
  return { status: response.status, headers: response.headers, text, code };
}

async function begin(repository = 'app'): Promise<string> {
  const { status, headers } = await call('POST', `/v2/${repository}/blobs/uploads/`);
  expect(status).toBe(202);
  return headers.get('location')!;
}

async function putBlob(bytes: Uint8Array, repository = 'app') {
  const { status } = await call('PUT', `${await begin(repository)}?digest=${digestOf(bytes)}`, bytes);
  expect(status).toBe(201);
  return { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digestOf(bytes), size: bytes.length };
}

const manifestOf = (config: unknown, more = {}) =>
  Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST_TYPE, config, layers: [], ...more }));
const putManifest = (reference: string, bytes: Uint8Array, type = MANIFEST_TYPE, repository = 'app') =>
  call('PUT', `/v2/${repository}/manifests/${reference}`, bytes, { 'content-type': type });

describe('the registry', () => {
  it('shows a blob to its own repository once the digest is right, and not before', async () => {
    const upload = await begin();
    expect(await call('PATCH', upload, BLOB.subarray(0, 5))).toMatchObject({ status: 202 });
    expect(await call('HEAD', `/v2/app/blobs/${DIGEST}`)).toMatchObject({ status: 404 });
    const wrong = await call('PUT', `${upload}?digest=${DIGEST}`, 'other bytes');
    expect(wrong).toMatchObject({ status: 400, code: 'DIGEST_INVALID' });
    expect([...store.objects.keys()].filter((key) => key.includes('blobs/'))).toEqual([]);
    expect(await call('PUT', `${upload}?digest=${DIGEST}`, BLOB.subarray(5))).toMatchObject({ status: 201 });
    expect((await call('GET', `/v2/app/blobs/${DIGEST}`)).text).toBe(BLOB.toString());
    expect(await call('GET', `/v2/other/blobs/${DIGEST}`)).toMatchObject({ status: 404, code: 'BLOB_UNKNOWN' });
    expect(await call('GET', upload)).toMatchObject({ status: 404, code: 'BLOB_UPLOAD_UNKNOWN' });
    expect([...store.objects.keys()].filter((key) => key.includes('_uploads'))).toEqual([]);
  });

  it('keeps nothing of an upload in one request that fails: nobody knows its id', async () => {
    const whole = (digest: string) => call('POST', `/v2/app/blobs/uploads/?digest=${digest}`, 'other bytes');
    expect(await whole(DIGEST)).toMatchObject({ status: 400, code: 'DIGEST_INVALID' });
    expect(await whole('sha256:x')).toMatchObject({ status: 400, code: 'DIGEST_INVALID' });
    expect([...store.objects.keys()]).toEqual([]);
  });

  it('takes chunks in order only, and says where an upload stands', async () => {
    const upload = await begin();
    const chunk = (from: number, to: number) =>
      call('PATCH', upload, BLOB.subarray(from, to), { 'content-range': `${from}-${to - 1}` });
    expect((await chunk(0, 4)).headers.get('range')).toBe('0-3');
    expect(await chunk(6, 8)).toMatchObject({ status: 416, code: 'RANGE_INVALID' });
    expect(await chunk(0, 4)).toMatchObject({ status: 416 });
    expect((await chunk(4, 8)).headers.get('range')).toBe('0-7');
    for (const range of ['9-18', '0-18', 'words', '8']) {
      const headers = { 'content-range': range };
      const last = await call('PUT', `${upload}?digest=${DIGEST}`, BLOB.subarray(8), headers);
      expect(last, range).toMatchObject({ status: 416, code: 'RANGE_INVALID' });
    }
    const standing = await call('GET', upload);
    expect([standing.status, standing.headers.get('range')]).toEqual([204, '0-7']);
    expect(await call('PUT', `${upload}?digest=${DIGEST}`, BLOB.subarray(8))).toMatchObject({ status: 201 });
    const other = await begin();
    expect(await call('DELETE', other)).toMatchObject({ status: 204 });
    expect(await call('PATCH', other, 'x')).toMatchObject({ status: 404 });
    for (const id of ['x', '..', `${'0'.repeat(12)}-${'0'.repeat(32)}`]) {
      expect((await call('PATCH', `/v2/app/blobs/uploads/${id}`, 'x')).status).toBeGreaterThanOrEqual(400);
    }
  });

  it('gives ranges of a blob', async () => {
    await putBlob(BLOB);
    const get = (range: string) => call('GET', `/v2/app/blobs/${DIGEST}`, undefined, { range });
    const part = await get('bytes=4-8');
    expect([part.status, part.text, part.headers.get('content-range')]).toEqual([
      206,
      'bytes',
      `bytes 4-8/${BLOB.length}`,
    ]);
    expect((await get('bytes=-4')).text).toBe('blob');
    expect((await get('bytes=15-')).text).toBe('blob');
    expect((await get('bytes=15-999')).text).toBe('blob');
    expect(await get(`bytes=${BLOB.length}-`)).toMatchObject({ status: 416 });
    for (const odd of ['bytes=8-4', 'bytes=1-2,4-5', 'lines=1-2', 'bytes=-']) expect((await get(odd)).status).toBe(200);
  });

  it('takes a manifest only when all it names is there, as it says', async () => {
    const config = await putBlob(BLOB);
    const missing = { ...config, digest: digestOf(Buffer.from('missing')) };
    expect(await putManifest('v1', manifestOf(missing))).toMatchObject({ code: 'MANIFEST_BLOB_UNKNOWN' });
    // Nor can it be had by its digest.
    expect([...store.objects.keys()].filter((key) => key.includes('_manifests/'))).toEqual([]);
    expect(await putManifest('v1', manifestOf({ ...config, size: 1 }))).toMatchObject({ code: 'MANIFEST_INVALID' });
    expect(await putManifest('v1', manifestOf(config), MANIFEST_TYPE, 'other')).toMatchObject({
      code: 'MANIFEST_BLOB_UNKNOWN',
    });
    const index = 'application/vnd.oci.image.index.v1+json';
    expect(await putManifest('v1', manifestOf(config), index)).toMatchObject({ code: 'MANIFEST_INVALID' });
    const nameless = manifestOf(config, { mediaType: undefined });
    expect(await putManifest('v1', nameless, index)).toMatchObject({ code: 'MANIFEST_INVALID' });
    const docker = 'application/vnd.docker.distribution.manifest.v2+json';
    expect(await putManifest('v1', manifestOf(config), docker)).toMatchObject({ code: 'MANIFEST_INVALID' });
    // Both kinds at once, and neither.
    const both = manifestOf(config, { mediaType: undefined, manifests: [] });
    expect(await putManifest('v1', both, index)).toMatchObject({ code: 'MANIFEST_INVALID' });
    const neither = manifestOf(config, { layers: undefined });
    expect(await putManifest('v1', neither)).toMatchObject({ code: 'MANIFEST_INVALID' });
    for (const bytes of ['', '{', '[]', '{"schemaVersion":1}', `{"schemaVersion":2,"config":${'['.repeat(1000)}`]) {
      expect(await putManifest('v1', Buffer.from(bytes))).toMatchObject({ status: 400, code: 'MANIFEST_INVALID' });
    }
    expect(await putManifest('v1', manifestOf(config), 'text/html')).toMatchObject({ code: 'MANIFEST_INVALID' });
    expect(await putManifest(DIGEST, manifestOf(config))).toMatchObject({ code: 'DIGEST_INVALID' });
    expect(await putManifest('.bad', manifestOf(config))).toMatchObject({ code: 'TAG_INVALID' });
    expect(await call('GET', '/v2/app/manifests/v1')).toMatchObject({ status: 404, code: 'MANIFEST_UNKNOWN' });
    const manifest = manifestOf(config);
    expect((await putManifest('v1', manifest)).headers.get('docker-content-digest')).toBe(digestOf(manifest));
    for (const reference of ['v1', digestOf(manifest), digestOf(manifest).replace(':', '%3A')]) {
      const got = await call('GET', `/v2/app/manifests/${reference}`);
      expect([got.text, got.headers.get('content-type')]).toEqual([manifest.toString(), MANIFEST_TYPE]);
    }
    const sparse = Buffer.from(
      JSON.stringify({ schemaVersion: 2, manifests: [{ ...config, mediaType: MANIFEST_TYPE }] }),
    );
    expect(await putManifest('i', sparse, index)).toMatchObject({ code: 'MANIFEST_BLOB_UNKNOWN' });
  });

  it('takes null for an empty list', async () => {
    const config = await putBlob(BLOB);
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: '', config, layers: null }));
    expect(await putManifest('none', bytes)).toMatchObject({ status: 201 });
  });

  it('lists tags page by page, and deletes a manifest with all its tags', async () => {
    const manifest = manifestOf(await putBlob(BLOB));
    for (const tag of ['c', 'a', 'b']) await putManifest(tag, manifest);
    const other = manifestOf(await putBlob(BLOB), { annotations: { other: 'image' } });
    await putManifest('d', other);
    await call('DELETE', `/v2/app/manifests/${digestOf(other)}`);
    const first = await call('GET', '/v2/app/tags/list?n=2');
    expect(JSON.parse(first.text)).toEqual({ name: 'app', tags: ['a', 'b'] });
    const next = /^<(.+)>; rel="next"$/.exec(first.headers.get('link') ?? '')![1]!;
    const second = await call('GET', next);
    expect([JSON.parse(second.text), second.headers.get('link')]).toEqual([{ name: 'app', tags: ['c'] }, null]);
    expect(await call('DELETE', '/v2/app/manifests/a')).toMatchObject({ status: 202 });
    expect(await call('GET', '/v2/app/manifests/a')).toMatchObject({ status: 404 });
    expect(await call('GET', '/v2/app/manifests/b')).toMatchObject({ status: 200 });
    expect(await call('GET', '/v2/app/manifests/d')).toMatchObject({ status: 404 });
    expect(await call('DELETE', `/v2/app/manifests/${digestOf(manifest)}`)).toMatchObject({ status: 202 });
    expect(await call('GET', '/v2/app/tags/list')).toMatchObject({ status: 404, code: 'NAME_UNKNOWN' });
    expect(await call('DELETE', `/v2/app/blobs/${DIGEST}`)).toMatchObject({ status: 202 });
    expect(await call('DELETE', `/v2/app/blobs/${DIGEST}`)).toMatchObject({ status: 404 });
  });

  it('knows the referrers of a manifest, also of one that is not there yet', async () => {
    const config = await putBlob(BLOB);
    const subject = manifestOf(config);
    const descriptor = { mediaType: MANIFEST_TYPE, digest: digestOf(subject), size: subject.length };
    const referrer = manifestOf(config, { subject: descriptor, artifactType: 'test/sbom', annotations: { a: 'b' } });
    const put = await putManifest(digestOf(referrer), referrer);
    expect([put.status, put.headers.get('oci-subject')]).toEqual([201, digestOf(subject)]);
    const list = async (query = '') => {
      const { text } = await call('GET', `/v2/app/referrers/${digestOf(subject)}${query}`);
      return (JSON.parse(text) as { manifests: unknown[] }).manifests;
    };
    const expected = { mediaType: MANIFEST_TYPE, digest: digestOf(referrer), size: referrer.length };
    expect(await list()).toEqual([{ ...expected, artifactType: 'test/sbom', annotations: { a: 'b' } }]);
    expect(await list('?artifactType=test/sbom')).toHaveLength(1);
    expect(await list('?artifactType=other')).toEqual([]);
    await call('DELETE', `/v2/app/manifests/${digestOf(referrer)}`);
    expect(await list()).toEqual([]);
    const place = `registry/repositories/app/_referrers/${digestOf(subject).slice(7)}/`;
    for (let i = 0; i < 1001; i++) store.objects.set(`${place}${i.toString(16).padStart(64, '0')}`, Buffer.from('{}'));
    expect(await list()).toHaveLength(1000);
  });

  it('asks about every repository, also the one that is mounted from', async () => {
    await putBlob(BLOB, 'secret');
    const asked: string[] = [];
    open({
      authorize: async (request, repository, action) => {
        asked.push(`${action} ${repository ?? '-'}`);
        if (!request.headers.has('authorization')) return 'unauthenticated';
        return repository === 'secret' ? 'deny' : 'allow';
      },
    });
    const anonymous = await call('GET', '/v2/');
    expect([anonymous.status, anonymous.headers.get('www-authenticate')]).toEqual([401, 'Basic realm="decant"']);
    const authorization = { authorization: 'Basic x' };
    expect(await call('GET', '/v2/', undefined, authorization)).toMatchObject({ status: 200 });
    expect(await call('GET', `/v2/secret/blobs/${DIGEST}`, undefined, authorization)).toMatchObject({ code: 'DENIED' });
    const mount = `/v2/app/blobs/uploads/?mount=${DIGEST}&from=secret`;
    expect(await call('POST', mount, undefined, authorization)).toMatchObject({ status: 202 });
    expect(await call('HEAD', `/v2/app/blobs/${DIGEST}`, undefined, authorization)).toMatchObject({ status: 404 });
    expect(asked).toEqual(['pull -', 'pull -', 'pull secret', 'push app', 'pull secret', 'pull app']);
  });

  it('asks what is done, and hides what is not to be seen', async () => {
    const asked: string[] = [];
    open({
      authorize: async (_, repository, action) => {
        asked.push(action);
        return repository === 'hidden' ? 'hide' : 'allow';
      },
    });
    expect(await call('DELETE', '/v2/app/manifests/v1')).toMatchObject({ code: 'MANIFEST_UNKNOWN' });
    expect(await call('PUT', '/v2/app/manifests/v1')).toMatchObject({ code: 'MANIFEST_INVALID' });
    expect(await call('DELETE', `/v2/app/blobs/uploads/x`)).toMatchObject({ code: 'BLOB_UPLOAD_UNKNOWN' });
    expect(asked).toEqual(['delete', 'push', 'push']);
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const { status, code } = await call(method, '/v2/hidden/manifests/v1');
      expect([status, code]).toEqual([404, 'NAME_UNKNOWN']);
    }
  });

  it('mounts a blob only from a repository that has it', async () => {
    await putBlob(BLOB, 'secret');
    store.objects.set(`registry/repositories/a/_b/_blobs/${DIGEST.slice(7)}`, new Uint8Array());
    for (const from of ['other', 'a/_b', '..', 'secret/_blobs']) {
      const mount = `/v2/app/blobs/uploads/?mount=${DIGEST}&from=${from}`;
      expect(await call('POST', mount), from).toMatchObject({ status: 202 });
    }
    expect(await call('HEAD', `/v2/app/blobs/${DIGEST}`)).toMatchObject({ status: 404 });
    expect(await call('POST', `/v2/app/blobs/uploads/?mount=${DIGEST}&from=secret`)).toMatchObject({ status: 201 });
  });

  it('gives the object up when a client reads no further', async () => {
    await putBlob(BLOB);
    let open = 0;
    store.stream = async function* () {
      open++;
      try {
        for (;;) yield BLOB.subarray(0, 1);
      } finally {
        open--;
      }
    };
    const response = await handler(new Request(`http://h/v2/app/blobs/${DIGEST}`));
    const reader = response.body!.getReader();
    await reader.read();
    expect(open).toBe(1);
    await reader.cancel();
    expect(open).toBe(0);
  });

  it('keeps to its limits', async () => {
    open({ limits: { blobBytes: 10, manifestBytes: 20, openUploads: 2 } });
    const upload = await begin();
    expect(await call('PATCH', upload, 'x'.repeat(11))).toMatchObject({ status: 413, code: 'SIZE_INVALID' });
    expect(await call('PATCH', upload, 'x'.repeat(6))).toMatchObject({ status: 202 });
    expect(await call('PATCH', upload, 'x'.repeat(5))).toMatchObject({ status: 413 });
    expect(await call('PUT', `${upload}?digest=${DIGEST}`, 'x'.repeat(5))).toMatchObject({ status: 413 });
    expect(await putManifest('v1', Buffer.alloc(21, ' '))).toMatchObject({ status: 413 });
    await begin();
    expect(await call('POST', '/v2/app/blobs/uploads/')).toMatchObject({ status: 429, code: 'TOOMANYREQUESTS' });
    open({ limits: { uploadAgeMs: -1000 } });
    await begin();
    expect(await call('GET', upload)).toMatchObject({ status: 404 });
  });

  it.each([
    '/',
    '/v2/_catalog',
    '/v2/app',
    '/v2/App/tags/list',
    '/v2/a//b/tags/list',
    '/v2/a/../../x/manifests/v',
    '/v2/_up/blobs/x',
  ])('has nothing at %s', async (path) => {
    expect([400, 404]).toContain((await call('GET', path)).status);
  });

  it('refuses digests that are none and methods it does not have', async () => {
    for (const digest of ['sha256:', `sha256:${'A'.repeat(64)}`, `sha512:${'a'.repeat(128)}`, 'sha256:..%2f..']) {
      expect(await call('GET', `/v2/app/blobs/${digest}`)).toMatchObject({ status: 400, code: 'DIGEST_INVALID' });
    }
    expect(await call('POST', '/v2/app/manifests/v1')).toMatchObject({ status: 405 });
    expect(await call('PUT', await begin(), 'x')).toMatchObject({ status: 400, code: 'DIGEST_INVALID' });
  });

  it('says of the store only that it is full or cannot answer now', async () => {
    for (const [error, status] of [
      [new DecantError('DISK_FULL', 'There is no space at /secret.'), 507],
      [new DecantError('HTTP_UNREACHABLE', 'The store at /secret is busy.', { retryable: true }), 503],
      [new DecantError('INTERNAL', 'The store at /secret is gone.', { retryable: false }), 500],
    ] as const) {
      store.head = () => Promise.reject(error);
      const failed = await call('GET', `/v2/app/blobs/${DIGEST}`);
      expect(failed).toMatchObject({ status, code: 'UNKNOWN' });
      expect(failed.text).not.toContain('secret');
    }
  });

  it('does not tell what failed inside, but for the operator', async () => {
    const told: unknown[] = [];
    open({ onError: (error) => void told.push(String(error)) });
    store.head = () => Promise.reject(new Error('the password of the store is hunter2'));
    const failed = await call('HEAD', `/v2/app/blobs/${DIGEST}`);
    expect(failed.status).toBe(500);
    expect((await call('GET', `/v2/app/blobs/${DIGEST}`)).text).not.toContain('hunter2');
    expect(told).toEqual(Array(2).fill('Error: the password of the store is hunter2'));
    await call('GET', '/v2/app/blobs/x');
    expect(told).toHaveLength(2);
  });
});
