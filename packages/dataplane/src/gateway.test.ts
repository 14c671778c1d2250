import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';

import { DecantError, type ObjectStore } from '@decant/core';

import { createObjectGateway, type ObjectGateway } from './gateway.ts';
import { createMemoryObjectStore } from './memory-store.ts';
import { encodeKey } from './object-key.ts';
import { formatCompletion } from './s3-xml.ts';
import { presignUrl } from './sigv4.ts';

const credentials = { accessKeyId: 'AK', secretAccessKey: 'secret' };
const body = Uint8Array.from({ length: 100 }, (_, index) => index);

describe('createObjectGateway', () => {
  let store: ObjectStore;
  let gateway: ObjectGateway;
  beforeEach(async () => {
    store = createMemoryObjectStore();
    await store.put('a/k 1', body);
    gateway = createObjectGateway({ store, credentials, region: 'local', basePath: '/objects', maxPartBytes: 1000 });
  });

  const call = (method: string, path: string, init: RequestInit = {}, served = gateway): Promise<Response> => {
    const url = presignUrl({ method, url: `http://h.test${path}`, credentials, region: 'local', expiresSeconds: 60 });
    return served(new Request(url, { method, ...init }));
  };
  const object = `/objects/${encodeKey('a/k 1')}`;
  const s3Code = async (response: Response) => /<Code>(.*)<\/Code>/.exec(await response.text())?.[1];

  it('gives an object whole, by HEAD and by range', async () => {
    const whole = await call('GET', object);
    expect(whole.status).toBe(200);
    expect(whole.headers.get('content-length')).toBe('100');
    expect(whole.headers.get('accept-ranges')).toBe('bytes');
    expect(await whole.bytes()).toEqual(body);
    const head = await call('HEAD', object);
    expect([head.status, head.headers.get('content-length'), await head.text()]).toEqual([200, '100', '']);
    expect((await call('HEAD', '/objects/none')).status).toBe(404);
  });

  it.each([
    ['bytes=0-0', 0, 1],
    ['bytes=10-19', 10, 20],
    ['bytes=90-', 90, 100],
    ['bytes=99-5000', 99, 100],
    ['bytes=-5', 95, 100],
    ['bytes=-500', 0, 100],
  ])('answers the range %s', async (range, from, to) => {
    const response = await call('GET', object, { headers: { range } });
    expect(response.status).toBe(206);
    expect(response.headers.get('content-range')).toBe(`bytes ${from}-${to - 1}/100`);
    expect(response.headers.get('content-length')).toBe(String(to - from));
    expect(await response.bytes()).toEqual(body.slice(from, to));
  });

  it.each(['bytes=100-', 'bytes=100-200', 'bytes=-0'])('cannot satisfy the range %s', async (range) => {
    const response = await call('GET', object, { headers: { range } });
    expect([response.status, response.headers.get('content-range')]).toEqual([416, 'bytes */100']);
    expect(await s3Code(response)).toBe('InvalidRange');
  });

  it.each(['bytes=5-4', 'bytes=-', 'bytes=a-b', 'items=0-1', 'bytes=0-1,3-4', `bytes=0-${'9'.repeat(30)}`])(
    'ignores what is no single range: %s',
    async (range) => expect((await call('GET', object, { headers: { range } })).status).toBe(200),
  );

  it('takes parts, completes and aborts', async () => {
    const id = await store.createMultipart('up');
    const etags: string[] = [];
    for (const n of [2, 1]) {
      const response = await call('PUT', `/objects/up?partNumber=${n}&uploadId=${id}`, { body: `part ${n};` });
      expect(response.status).toBe(200);
      etags[n] = response.headers.get('etag')!;
      expect(etags[n]).toMatch(/^"[0-9a-f]+"$/);
    }
    const listed = (...numbers: number[]) =>
      formatCompletion(numbers.map((n) => ({ partNumber: n, etag: etags[n]!.slice(1, -1) })));
    const disorder = await call('POST', `/objects/up?uploadId=${id}`, { body: listed(2, 1) });
    expect([disorder.status, await s3Code(disorder)]).toEqual([400, 'InvalidPartOrder']);
    const wrong = await call('POST', `/objects/up?uploadId=${id}`, {
      body: listed(1, 2).replace(etags[2]!.slice(1, 5), 'zzzz'),
    });
    expect([wrong.status, await s3Code(wrong)]).toEqual([400, 'InvalidPart']);
    const done = await call('POST', `/objects/up?uploadId=${id}`, { body: listed(1, 2) });
    expect(done.status).toBe(200);
    expect(await done.text()).toContain('<CompleteMultipartUploadResult');
    expect(Buffer.from(await store.get('up')).toString()).toBe('part 1;part 2;');

    const other = await store.createMultipart('up');
    expect((await call('DELETE', `/objects/up?uploadId=${other}`)).status).toBe(204);
    const late = await call('PUT', `/objects/up?partNumber=1&uploadId=${other}`, { body: 'x' });
    expect([late.status, await s3Code(late)]).toEqual([404, 'NoSuchUpload']);
  });

  it('bounds a part, declared or not, and notices one that was cut', async () => {
    const id = await store.createMultipart('up');
    const path = `/objects/up?partNumber=1&uploadId=${id}`;
    const stream = () => new Blob([new Uint8Array(1001)]).stream();
    const streamed = await call('PUT', path, { body: stream(), duplex: 'half' });
    expect([streamed.status, await s3Code(streamed)]).toEqual([400, 'EntityTooLarge']);
    const declared = await call('PUT', path, { body: 'x', headers: { 'content-length': '1001' } });
    expect(await s3Code(declared)).toBe('EntityTooLarge');
    const cut = await call('PUT', path, { body: 'x', headers: { 'content-length': '2' } });
    expect(await s3Code(cut)).toBe('IncompleteBody');
    const signed = { 'x-amz-content-sha256': 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD' };
    expect((await call('PUT', path, { body: 'x', headers: signed })).status).toBe(501);
    const encoded = { 'content-encoding': 'gzip, AWS-chunked' };
    expect((await call('PUT', path, { body: 'x', headers: encoded })).status).toBe(501);
    expect((await call('PUT', path, { body: new Uint8Array(1000) })).status).toBe(200);
  });

  it.each([
    '',
    'hello',
    '<CompleteMultipartUpload>',
    '<CompleteMultipartUpload></Wrong>',
    '<CompleteMultipartUpload/><CompleteMultipartUpload/>',
    '<!DOCTYPE x [<!ENTITY a "b">]><CompleteMultipartUpload/>',
    '<CompleteMultipartUpload><Part><PartNumber>x</PartNumber><ETag>y</ETag></Part></CompleteMultipartUpload>',
    '<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>',
    '<Error><Code>1</Code></Error>',
    '<a>'.repeat(5000),
  ])('refuses the completion %j', async (text) => {
    const id = await store.createMultipart('up');
    const response = await call('POST', `/objects/up?uploadId=${id}`, { body: text });
    expect([response.status, await s3Code(response)]).toEqual([400, 'MalformedXML']);
  });

  it('answers any completion text with a client’s error, quickly', async () => {
    const id = await store.createMultipart('up');
    const token = fc.constantFrom(
      '<',
      '>',
      '</',
      '/>',
      'Part',
      'ETag',
      '&',
      '&#x41;',
      '"',
      ' ',
      '<?xml',
      '<!--',
      '1',
      '\0',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof(token, fc.string()), { maxLength: 60 }), async (tokens) => {
        const response = await call('POST', `/objects/up?uploadId=${id}`, { body: tokens.join('') });
        expect(response.status).toBe(400);
      }),
    );
    const huge = await call('POST', `/objects/up?uploadId=${id}`, { body: 'x'.repeat(6_000_000) });
    expect(await s3Code(huge)).toBe('EntityTooLarge');
  });

  it('does not answer without a signature, whether or not the object is there', async () => {
    for (const path of [object, '/objects/none', '/elsewhere']) {
      const response = await gateway(new Request(`http://h.test${path}`));
      expect([response.status, await s3Code(response)]).toEqual([403, 'SignatureDoesNotMatch']);
    }
  });

  it('offers nothing else, even signed', async () => {
    const unknown: [string, string][] = [
      ['DELETE', object],
      ['PUT', object],
      ['POST', `${object}?uploads=`],
      ['GET', `${object}?acl=`],
      ['GET', `${object}?uploadId=x`],
      ['PUT', `${object}?partNumber=1&partNumber=2&uploadId=x`],
    ];
    for (const [method, path] of unknown) {
      expect([method, path, (await call(method, path)).status]).toEqual([method, path, 501]);
    }
    expect((await call('GET', '/other/a')).status).toBe(404);
    expect((await call('GET', '/objects/')).status).toBe(400);
    expect((await call('GET', '/objects/a%2Fk%201')).status).toBe(400);
    expect(await store.get('a/k 1')).toEqual(body);
  });

  it('says nothing of its inside when the store fails', async () => {
    const failing: ObjectStore = { ...store, head: () => Promise.reject(new Error('EIO: /secret/path')) };
    const served = createObjectGateway({ store: failing, credentials, region: 'local', basePath: '/objects' });
    const response = await call('GET', object, {}, served);
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain('secret');
    const full: ObjectStore = { ...store, putPart: () => Promise.reject(new DecantError('DISK_FULL', 'No space.')) };
    const small = createObjectGateway({ store: full, credentials, region: 'local', basePath: '/objects' });
    expect((await call('PUT', '/objects/up?partNumber=1&uploadId=x', { body: 'x' }, small)).status).toBe(507);
  });
});
