import { createHash } from 'node:crypto';
import { join } from 'node:path';

import { createFileObjectStore } from '@decant/dataplane';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { openTestServer, type Caller, type TestServer } from '../server.fixture.ts';

const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;
const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

let test: TestServer;
let one: Caller;
let two: Caller;
beforeEach(async () => {
  test = await openTestServer();
  one = await test.caller('one');
  two = await test.caller('two');
});
afterEach(() => test[Symbol.asyncDispose]());

const v2 = (path: string, authorization?: string, init: RequestInit = {}) =>
  one.fetch(`http://registry.test${path}`, {
    ...init,
    headers: { ...(init.headers as Record<string, string>), ...(authorization === undefined ? {} : { authorization }) },
  });
const keyOf = (caller: Caller) => basic('any', caller.key!);

async function pushBlob(repository: string, text: string, authorization: string): Promise<Response> {
  return v2(`/v2/${repository}/blobs/uploads/?digest=${sha256(text)}`, authorization, { method: 'POST', body: text });
}

async function pushImage(repository: string, tag: string, authorization: string): Promise<string> {
  await pushBlob(repository, '{}', authorization);
  await pushBlob(repository, 'layer', authorization);
  const descriptor = (mediaType: string, text: string) => ({ mediaType, digest: sha256(text), size: text.length });
  const manifest = JSON.stringify({
    schemaVersion: 2,
    config: descriptor('application/vnd.oci.image.config.v1+json', '{}'),
    layers: [descriptor('application/vnd.oci.image.layer.v1.tar', 'layer')],
  });
  const init = { method: 'PUT', body: manifest, headers: { 'content-type': MANIFEST } };
  const { status } = await v2(`/v2/${repository}/manifests/${tag}`, authorization, init);
  expect(status).toBe(201);
  return sha256(manifest);
}

describe('the mounted registry', () => {
  it('asks for basic authentication, and takes keys as passwords and as tokens', async () => {
    for (const bad of [
      undefined,
      'Basic',
      'Basic !!!',
      basic('a', 'b'),
      `Bearer ${one.key!.slice(0, -1)}`,
      `Negotiate ${one.key}`,
      basic(one.key!, ''),
    ]) {
      for (const path of ['/v2/', '/v2/one/app/manifests/v1', '/v2/one/app/tags/list']) {
        const answer = await v2(path, bad);
        expect([answer.status, answer.headers.get('www-authenticate')], bad).toEqual([401, 'Basic realm="decant"']);
        expect(await answer.json()).toMatchObject({ errors: [{ code: 'UNAUTHORIZED' }] });
      }
    }
    for (const good of [keyOf(one), basic('', one.key!), `Bearer ${one.key}`, `basic  ${keyOf(one).slice(6)}`]) {
      expect((await v2('/v2/', good)).status).toBe(200);
      expect((await v2('/v2', good)).status).toBe(200);
    }
  });

  it('keeps what one namespace pushes for itself', async () => {
    const digest = await pushImage('one/app', 'v1', keyOf(one));
    const pulled = await v2('/v2/one/app/manifests/v1', keyOf(one));
    expect([pulled.status, pulled.headers.get('content-type'), pulled.headers.get('docker-content-digest')]).toEqual([
      200,
      MANIFEST,
      digest,
    ]);
    const blob = await v2(`/v2/one/app/blobs/${sha256('layer')}`, keyOf(one), { headers: { range: 'bytes=1-2' } });
    expect([blob.status, await blob.text()]).toEqual([206, 'ay']);
    const head = await v2(`/v2/one/app/blobs/${sha256('layer')}`, keyOf(one), { method: 'HEAD' });
    expect([head.status, head.headers.get('content-length'), await head.text()]).toEqual([200, '5', '']);
    for (const path of [
      '/v2/one/app/manifests/v1',
      `/v2/one/app/blobs/${sha256('layer')}`,
      '/v2/one/app/tags/list',
      '/v2/one/manifests/v1',
      '/v2/oneapp/x/manifests/v1',
    ]) {
      expect((await v2(path, keyOf(two))).status, path).toBe(404);
    }
    for (const [method, path] of [
      ['POST', '/v2/one/app/blobs/uploads/'],
      ['DELETE', '/v2/one/app/manifests/v1'],
      ['PUT', '/v2/one/app/manifests/v1'],
    ] as const) {
      expect((await v2(path, keyOf(two), { method })).status, path).toBe(404);
    }
    // A namespace is not all whose names begin with its own.
    for (const path of ['/v2/oneapp/x/tags/list', '/v2/one/tags/list', '/v2/onex/manifests/v1']) {
      expect((await v2(path, keyOf(one))).status, path).toBe(404);
    }
    for (const repository of ['oneapp/x', 'one']) {
      expect((await pushBlob(repository, 'mine', keyOf(one))).status, repository).toBe(404);
    }
    // The digest of another namespace's blob is no way to it, neither by name nor by mounting.
    expect((await v2(`/v2/two/app/blobs/${sha256('layer')}`, keyOf(two))).status).toBe(404);
    const mount = `/v2/two/app/blobs/uploads/?mount=${sha256('layer')}&from=one/app`;
    expect((await v2(mount, keyOf(two), { method: 'POST' })).status).toBe(202);
    const own = `/v2/one/other/blobs/uploads/?mount=${sha256('layer')}&from=one/app`;
    expect((await v2(own, keyOf(one), { method: 'POST' })).status).toBe(201);
    const keys = [];
    const store = createFileObjectStore({ directory: join(test.directory, 'objects'), fsync: 'never' });
    for await (const { key } of store.list('ns/')) keys.push(key);
    expect(keys.filter((key) => key.includes('blobs/sha256'))).toHaveLength(2);
    expect(keys.every((key) => key.startsWith('ns/one/registry/') || key.startsWith('ns/two/registry/'))).toBe(true);
  });

  it('lets the operator into every namespace', async () => {
    await pushImage('one/app', 'v1', keyOf(one));
    const request = new Request('http://decant.invalid/v2/one/app/manifests/v1');
    expect((await test.server.handle(request, 'operator')).status).toBe(200);
    const none = new Request('http://decant.invalid/v2/two/app/manifests/v1');
    expect((await test.server.handle(none, 'operator')).status).toBe(404);
  });

  it('gives out credentials that open the registry alone, until they end', async () => {
    const { status, body } = await one.call('POST', '/v1/container-registries/default/credentials');
    expect([status, Object.keys(body).sort()]).toEqual([201, ['expired_at', 'password', 'registry_url', 'username']]);
    expect(body.registry_url).toBe('server.test/one');
    const lifeMs = Date.parse(body.expired_at) - Date.now();
    expect(lifeMs).toBeGreaterThan(11 * 3600_000);
    expect(lifeMs).toBeLessThan(13 * 3600_000);
    const login = basic(body.username, body.password);
    await pushImage('one/app', 'v1', login);
    expect((await v2('/v2/two/app/manifests/v1', login)).status).toBe(404);
    const elsewhere = await v2('/v1/images', `Bearer ${body.password}`);
    expect(elsewhere.status).toBe(401);
    const changed = body.password.slice(0, -1) + (body.password.endsWith('A') ? 'B' : 'A');
    expect((await v2('/v2/', basic(body.username, changed))).status).toBe(401);
    // With the key that asked for them they end as well.
    await test.server.metadata.keys.revoke(one.key!.slice(3, 15));
    expect((await v2('/v2/', login)).status).toBe(401);
    expect((await one.call('POST', '/v1/container-registries/default/credentials')).status).toBe(401);
  });

  it('has no address when it does not listen', async () => {
    const request = new Request('http://decant.invalid/v1/container-registries/default/credentials', {
      method: 'POST',
    });
    const answer = await test.server.handle(request, 'operator');
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ code: 'USAGE' });
  });
});

describe('a collection on demand', () => {
  const collect = (body: object, operator = true) =>
    test.server.handle(
      new Request('http://h/v1/registry/collect', {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json', authorization: `Bearer ${one.key!}` },
      }),
      ...(operator ? ['operator' as const] : []),
    );

  it('removes what no image needs from the registries of all namespaces, and says what', async () => {
    const digest = await pushImage('one/app', 'v1', keyOf(one));
    await pushImage('one/kept', 'v1', keyOf(one));
    await pushBlob('two/app', 'nobody needs it', keyOf(two));
    await v2(`/v2/one/app/manifests/${digest}`, keyOf(one), { method: 'DELETE' });
    const careful = (await (await collect({})).json()) as { namespaces: Record<string, unknown>[] };
    expect(careful.namespaces.every(({ removed, unlinked }) => removed === 0 && unlinked === 0)).toBe(true);
    const { namespaces } = (await (await collect({ graceSeconds: 0 })).json()) as typeof careful;
    expect(namespaces.find(({ namespace }) => namespace === 'one')).toMatchObject({ unlinked: 2, removed: 0 });
    expect(namespaces.find(({ namespace }) => namespace === 'two')).toMatchObject({
      unlinked: 1,
      removed: 1,
      removedBytes: 'nobody needs it'.length,
    });
    expect((await v2(`/v2/one/kept/blobs/${sha256('layer')}`, keyOf(one))).status).toBe(200);
  });

  it('is for operators, and for whole seconds', async () => {
    expect((await collect({}, false)).status).toBe(403);
    for (const graceSeconds of [-1, 0.5, 'x']) expect((await collect({ graceSeconds })).status).toBe(400);
  });
});
