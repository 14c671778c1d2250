import { parseLocator, parseManifest } from '@decant/cas';
import { loadNodeHashProvider } from '@decant/cas/node';
import { problemSchema } from '@decant/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { chunkOf, completionOf, openTestServer, stagedImage, type Caller, type TestServer } from './server.fixture.ts';

let bench: TestServer;
let acme: Caller;
let other: Caller;
beforeAll(async () => {
  bench = await openTestServer();
  acme = await bench.caller('acme');
  other = await bench.caller('other');
});
afterAll(async () => {
  // Nothing that these requests do is the server's fault.
  expect(bench.errors).toEqual([]);
  await bench[Symbol.asyncDispose]();
});

const problem = (status: number, code: string) => ({
  status,
  type: 'application/problem+json',
  body: expect.objectContaining({ code, status }) as object,
});

describe('who may call', () => {
  it('answers health without a key, and nothing else', async () => {
    const nobody = await bench.caller(null);
    expect(await nobody.call('GET', '/healthz')).toMatchObject({ status: 200, body: { status: 'ok' } });
    expect(await nobody.call('GET', '/readyz')).toMatchObject({ status: 200 });
    for (const [method, path] of [
      ['GET', '/v1/images'],
      ['POST', '/v1/chunks/missing'],
      ['POST', '/api/v1/blob/sign'],
      ['POST', '/platform/v1/sandbox-template-builds'],
      ['GET', '/nothing'],
    ] as const) {
      expect(await nobody.call(method, path)).toMatchObject(problem(401, 'UNAUTHORIZED'));
    }
    const unsigned = await nobody.call('GET', '/objects/ns/acme/manifests/x');
    expect(unsigned).toMatchObject({ status: 403, type: 'application/xml' });
  });

  it('refuses keys that are malformed, unknown, altered or revoked', async () => {
    const { key = '' } = acme;
    const last = key.endsWith('A') ? 'B' : 'A';
    const bad = ['x', 'dk_', key.slice(0, -1), key.slice(0, -1) + last, `dk_000000000000_${key.slice(16)}`, `${key}x`];
    for (const each of bad) {
      const response = await acme.fetch('http://server.test/v1/images', {
        headers: { authorization: `Bearer ${each}` },
      });
      expect(response.status).toBe(401);
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
    }
    const revoked = await bench.caller('acme');
    expect((await revoked.call('GET', '/v1/images')).status).toBe(200);
    await bench.server.metadata.keys.revoke(revoked.key!.split('_')[1]!);
    expect(await revoked.call('GET', '/v1/images')).toMatchObject(problem(401, 'UNAUTHORIZED'));
  });

  it('lets only an operator manage keys, and never shows a secret again', async () => {
    expect(await acme.call('GET', '/v1/keys')).toMatchObject(problem(403, 'FORBIDDEN'));
    expect(await acme.call('POST', '/v1/keys', {})).toMatchObject(problem(403, 'FORBIDDEN'));
    const operator = (method: string, path: string, body?: object) =>
      bench.server.handle(
        new Request(`http://server.test${path}`, {
          method,
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        }),
        'operator',
      );
    const made = await operator('POST', '/v1/keys', { namespace: 'third' });
    expect(made.status).toBe(201);
    const { key, id } = (await made.json()) as { key: string; id: string };
    const listed = await (await operator('GET', '/v1/keys')).text();
    expect(listed).toContain(id);
    const [, secret] = /^dk_[0-9a-f]{12}_(.{43})$/.exec(key)!;
    expect(listed).not.toContain(secret);
    expect((await operator('POST', '/v1/keys', { namespace: 'Not A Name' })).status).toBe(400);
    expect((await operator('DELETE', `/v1/keys/${id}`)).status).toBe(200);
    expect((await operator('DELETE', '/v1/keys/none')).status).toBe(404);
  });
});

describe('requests that are wrong', () => {
  it('are answered with problem documents that parse', async () => {
    const cases: [string, string, unknown, number, string][] = [
      ['POST', '/platform/v1/sandbox-template-builds', '{', 400, 'USAGE'],
      ['POST', '/platform/v1/sandbox-template-builds', '', 400, 'USAGE'],
      ['POST', '/platform/v1/sandbox-template-builds', { name: 'UPPER' }, 400, 'NAME_INVALID'],
      ['POST', '/platform/v1/sandbox-template-builds', { name: 'a', rootfsNodeKind: 'diff' }, 400, 'USAGE'],
      ['POST', '/platform/v1/sandbox-template-builds', { name: 'a', rootfsFormat: 'vhd' }, 400, 'USAGE'],
      ['GET', '/platform/v1/sandbox-template-builds/none', undefined, 404, 'NOT_FOUND'],
      ['POST', '/v1/chunks/missing', { ids: ['zz'] }, 400, 'USAGE'],
      ['POST', '/v1/chunks/missing', { ids: Array.from({ length: 16_385 }, () => '0'.repeat(64)) }, 400, 'USAGE'],
      ['GET', '/v1/images?limit=0', undefined, 400, 'USAGE'],
      ['GET', '/v1/images?limit=1e9', undefined, 400, 'USAGE'],
      ['GET', '/v1/images?cursor=%00', undefined, 400, 'NAME_INVALID'],
      ['GET', '/v1/images/none', undefined, 404, 'NOT_FOUND'],
      ['GET', `/v1/images/cas-v1:${'0'.repeat(64)}`, undefined, 404, 'NOT_FOUND'],
      ['GET', '/v1/images/%E0%A4%A', undefined, 400, 'NAME_INVALID'],
      ['DELETE', '/v1/names/none', undefined, 404, 'NOT_FOUND'],
      ['GET', '/v1/names/none/history', undefined, 404, 'NOT_FOUND'],
      ['PUT', '/v1/names/a', { imageId: 'x' }, 400, 'ID_INVALID'],
      ['PUT', '/v1/names/a', { imageId: `cas-v1:${'0'.repeat(64)}` }, 404, 'NOT_FOUND'],
      ['GET', '/v1/nothing', undefined, 404, 'NOT_FOUND'],
      ['POST', '/v1/chunks/missing', `{"ids":["${'a'.repeat(5 * 1024 * 1024)}"]}`, 413, 'LIMIT_EXCEEDED'],
    ];
    for (const [method, path, body, status, code] of cases) {
      const answer = await acme.call(method, path, body);
      expect([path, answer]).toEqual([path, expect.objectContaining(problem(status, code))]);
      expect(problemSchema.safeParse(answer.body).success).toBe(true);
    }
  });
});

describe('an upload', () => {
  it('is admitted: 202, then completed, and again the same template', async () => {
    const { manifest, status, body } = await acme.push([chunkOf(1), chunkOf(2)], 'first:v1');
    expect(status).toBe(202);
    expect(body).toMatchObject({
      status: 'completed',
      template: {
        name: 'first:v1',
        imageId: manifest.id,
        snapshotSizeBytes: 32_768,
        admission: { chunksTotal: 2, chunksNew: 2, newBytes: 32_768 },
      },
    });
    const path = `/platform/v1/sandbox-template-builds/${body.buildId}`;
    const again = await acme.call('POST', `${path}/complete`, {
      ...completionOf({ ...body.template, buildId: body.buildId }, body.template.snapshotUri, 32_768),
    });
    expect(again).toMatchObject({ status: 200, body: body.template });
    expect(await other.call('GET', path)).toMatchObject(problem(404, 'NOT_FOUND'));
    expect(await other.call('POST', `${path}/complete`, completionOf(body.template, 'x', 1))).toMatchObject(
      problem(404, 'NOT_FOUND'),
    );
  });

  it('of what the namespace has adds a name and no object', async () => {
    await acme.push([chunkOf(3)], 'once');
    const { body } = await acme.push([chunkOf(3)], 'twice');
    expect(body.template.admission).toEqual({ chunksTotal: 1, chunksNew: 0, newBytes: 0, storedBytes: 0 });
    expect((await acme.call('GET', '/v1/images/twice')).body.image.id).toBe(body.template.imageId);
    // Another namespace that has the same bytes has its own copy, and is told nothing.
    const theirs = await other.push([chunkOf(3)], 'once');
    expect(theirs.body.template.admission).toMatchObject({ chunksNew: 1 });
  });

  it('that is refused says why each time it is asked, and shows nothing', async () => {
    const build = await acme.prepare({ name: 'bad' });
    const { manifest } = await stagedImage([chunkOf(40)]);
    const uri = await acme.upload(build, 'manifest', manifest.bytes);
    const path = `/platform/v1/sandbox-template-builds/${build.buildId}`;
    const completion = completionOf(build, uri, manifest.virtualBytes);
    expect((await acme.call('POST', `${path}/complete`, completion)).status).toBe(202);
    expect(await acme.poll(build.buildId)).toMatchObject({
      status: 'failed',
      error: expect.stringContaining('neither uploaded') as string,
      problem: { code: 'INGEST_CHUNK_UNREACHABLE', hint: expect.any(String) as string },
    });
    expect(await acme.call('POST', `${path}/complete`, completion)).toMatchObject(
      problem(422, 'INGEST_CHUNK_UNREACHABLE'),
    );
    expect((await acme.call('GET', '/v1/images/bad')).status).toBe(404);
    expect((await acme.call('GET', `/v1/images/${manifest.id}`)).status).toBe(404);
  });

  it('is completed only as it was prepared', async () => {
    const build = await acme.prepare();
    const uri = await acme.upload(build, 'manifest', chunkOf(1, 1));
    const complete = (change: object) =>
      acme.call(
        'POST',
        `/platform/v1/sandbox-template-builds/${build.buildId}/complete`,
        completionOf(build, uri, 4096, change),
      );
    expect(await complete({ snapshotId: 'another' })).toMatchObject(problem(400, 'USAGE'));
    expect(await complete({ snapshotFormatVersion: 'durable_archive_v1' })).toMatchObject(problem(400, 'USAGE'));
    expect(await complete({ rootfsFormat: 'ext4' })).toMatchObject(problem(400, 'USAGE'));
    expect(await complete({ rootfsNodeKind: 'diff' })).toMatchObject(problem(400, 'USAGE'));
    expect(await complete({ snapshotSizeBytes: -1 })).toMatchObject(problem(400, 'USAGE'));
    for (const wrong of ['', 'decant://elsewhere/x', `${uri}x`, uri.replace('/ns/acme/', '/ns/other/')]) {
      expect(await complete({ snapshotUri: wrong })).toMatchObject(problem(422, 'UPLOAD_URI_MISMATCH'));
    }
    // None of that has changed the build. A number may come as text.
    expect(await complete({ snapshotSizeBytes: '4096' })).toMatchObject({ status: 202 });
    expect(await acme.poll(build.buildId)).toMatchObject({ status: 'failed', problem: { code: 'INGEST_REFUSED' } });
  });

  it('of an ext4 image is answered when it has ended', async () => {
    const build = await acme.prepare({ rootfsFormat: 'ext4' });
    expect(build.snapshotRelPath).toMatch(/\/rootfs\.ext4\.zst$/);
    const complete = await acme.call(
      'POST',
      `/platform/v1/sandbox-template-builds/${build.buildId}/complete`,
      completionOf(build, `decant://decant/${build.snapshotRelPath}`, 4096, {
        snapshotFormatVersion: 'durable_archive_v1',
      }),
    );
    expect(complete).toMatchObject(problem(422, 'INGEST_REFUSED'));
  });
});

describe('signing', () => {
  const sign = (caller: Caller, target: object, op: object = { kind: 'put_artifact' }) =>
    caller.call('POST', '/api/v1/blob/sign', { target, op });
  const artifact = (path: string) => ({ kind: 'artifact', rel_path: path });

  it('gives nothing outside the staging area of a build of the caller that is open', async () => {
    const { snapshotRelPath: prefix } = await acme.prepare();
    expect((await sign(acme, artifact(`${prefix}/packs/000000`))).status).toBe(200);
    for (const path of [
      prefix,
      `${prefix}/`,
      `${prefix}/../x`,
      `${prefix}/a//b`,
      `${prefix}x/manifest`,
      'ns/acme/manifests/0',
      `ns/acme/staging/none/manifest`,
      '/etc/passwd',
      `${prefix}\\x`,
    ]) {
      expect([path, (await sign(acme, artifact(path))).status]).toEqual([path, 403]);
    }
    expect(await sign(other, artifact(`${prefix}/manifest`))).toMatchObject(problem(403, 'SIGN_PATH_FORBIDDEN'));
    const { body } = await acme.push([chunkOf(5)], 'closed');
    expect(await sign(acme, artifact(`ns/acme/staging/${body.buildId}/manifest`))).toMatchObject(
      problem(409, 'INGEST_STATE'),
    );
  });

  it('reads what the namespace has admitted, not what is staged or another one has', async () => {
    const { manifest } = await acme.push([chunkOf(6)], 'readable');
    const key = `ns/acme/manifests/${manifest.id.slice(7)}`;
    const get = { kind: 'get_blob' };
    const signed = await sign(acme, { kind: 'blob', uri: `decant://decant/${key}` }, get);
    expect(signed).toMatchObject({ status: 200, body: { kind: 'single_get', method: 'GET' } });
    const response = await acme.fetch(signed.body.url);
    expect(Buffer.from(await response.arrayBuffer()).equals(manifest.bytes)).toBe(true);
    expect(await sign(other, { kind: 'blob', uri: `decant://decant/${key}` }, get)).toMatchObject(
      problem(403, 'SIGN_PATH_FORBIDDEN'),
    );
    const build = await acme.prepare();
    const staged = await acme.upload(build, 'manifest', chunkOf(1, 1));
    expect(await sign(acme, { kind: 'blob', uri: staged }, get)).toMatchObject(problem(403, 'SIGN_PATH_FORBIDDEN'));
  });
});

describe('the read plane', () => {
  it('gives manifest, locator and signed packs of an image by name and by id', async () => {
    const { manifest } = await acme.push([chunkOf(7), chunkOf(8)], 'read/me:v2');
    const hash = await loadNodeHashProvider();
    for (const ref of [encodeURIComponent('read/me:v2'), manifest.id]) {
      const headers = { authorization: `Bearer ${acme.key}` };
      const bytes = async (what: string) =>
        new Uint8Array(
          await (await acme.fetch(`http://server.test/v1/images/${ref}/${what}`, { headers })).arrayBuffer(),
        );
      expect(parseManifest(await bytes('manifest'), hash).id).toBe(manifest.id);
      const locator = parseLocator(await bytes('locator'));
      expect(locator.imageId).toBe(manifest.id);
      const signed = await acme.call('POST', `/v1/images/${ref}/packs/sign`, { packs: [0] });
      const pack = await acme.fetch(signed.body.packs[0].url, { headers: { range: 'bytes=0-7' } });
      expect([pack.status, await pack.text()]).toEqual([206, 'DCNTPCK1']);
      expect(await acme.call('POST', `/v1/images/${ref}/packs/sign`, { packs: [1] })).toMatchObject(
        problem(400, 'USAGE'),
      );
      expect(await other.call('GET', `/v1/images/${ref}/manifest`)).toMatchObject(problem(404, 'NOT_FOUND'));
      expect(await acme.call('GET', `/v1/images/${ref}/archive`)).toMatchObject(problem(400, 'USAGE'));
    }
  });

  it('says which chunks are missing, of the own namespace only', async () => {
    const { manifest } = await acme.push([chunkOf(9)], 'has-nine');
    const [id] = manifest.chunkIds();
    const ids = [id, 'f'.repeat(64)];
    expect((await acme.call('POST', '/v1/chunks/missing', { ids })).body).toEqual({ missing: ['f'.repeat(64)] });
    expect((await other.call('POST', '/v1/chunks/missing', { ids })).body).toEqual({ missing: ids });
  });
});

describe('names', () => {
  it('are listed page by page, tagged, moved and removed, and remember', async () => {
    const lone = await bench.caller('names-only');
    const one = (await lone.push([chunkOf(20)], 'img:a')).manifest.id;
    const two = (await lone.push([chunkOf(21)], 'img:b')).manifest.id;
    const put = (name: string, imageId: string, query = '') =>
      lone.call('PUT', `/v1/names/${encodeURIComponent(name)}${query}`, { imageId });
    expect(await put('img:a', two)).toMatchObject({ status: 200, body: { name: 'img', tag: 'a', image: { id: two } } });
    expect((await put('copy', one)).status).toBe(200);
    expect(await put('copy', one, '?from=img%3Ab')).toMatchObject(problem(409, 'CONFLICT'));
    const pages: string[] = [];
    for (let cursor: string | null = ''; cursor !== null;) {
      const { body } = await lone.call(
        'GET',
        `/v1/images?limit=2${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
      );
      pages.push(body.images.map((image: { name: string; tag: string }) => `${image.name}:${image.tag}`).join(' '));
      cursor = body.nextCursor;
    }
    expect(pages).toEqual(['copy:latest img:a', 'img:b']);
    expect((await lone.call('DELETE', '/v1/names/img%3Aa')).status).toBe(204);
    const { body } = await lone.call('GET', '/v1/names/img%3Aa/history');
    expect(body.versions.map((each: { imageId: string | null }) => each.imageId)).toEqual([null, two, one]);
    expect((await lone.call('GET', `/v1/images/${one}`)).body).toMatchObject({ name: null, image: { id: one } });
    expect((await acme.call('GET', '/v1/names/img%3Aa/history')).status).toBe(404);
  });
});
