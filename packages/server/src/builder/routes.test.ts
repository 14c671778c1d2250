import { randomUUID } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { buildFieldsSchema, parseNamespace } from '@decant/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { openTestServer, type Caller, type TestServer } from '../server.fixture.ts';

const ORIGIN = 'http://server.test';
const acme = parseNamespace('acme');
let test: TestServer;
let caller: Caller;
let stranger: Caller;
beforeEach(async () => {
  test = await openTestServer();
  caller = await test.caller('acme');
  stranger = await test.caller('other');
});
afterEach(() => test[Symbol.asyncDispose]());

/** A build that waits: this server has no runner for builds of tenants. */
async function waiting(name = 'app', idempotencyKey?: string): Promise<string> {
  const build = {
    ...({ id: randomUUID(), namespace: acme, trust: 'tenant', host: 'h', name, tag: 'latest' } as const),
    ...{ cacheKey: name, contextBytes: 1, digest: randomUUID(), idempotencyKey },
    fields: buildFieldsSchema.parse({ image_name: name }),
  };
  return (await test.server.metadata.imageBuilds.submit(build, { queued: 99, repeatMs: 0 })).build.id;
}

function send(as: Caller, fields: Readonly<Record<string, string>>, headers: Readonly<Record<string, string>> = {}) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  body.append('context', new Blob([new Uint8Array(1024)]), 'context.tar.gz');
  return as.fetch(`${ORIGIN}/builds`, {
    method: 'POST',
    headers: { authorization: `Bearer ${as.key}`, ...headers },
    body,
  });
}

const idsOf = (body: { data: { build_id: string }[] }) => body.data.map(({ build_id: id }) => id);

describe('/builds', () => {
  it('lists those of the caller, newest first, page by page', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 5; i++) ids.unshift(await waiting());
    const first = await caller.call('GET', '/builds?limit=2');
    const rest = await caller.call('GET', `/builds?limit=3&cursor=${first.body.next_cursor}`);
    expect([...idsOf(first.body), ...idsOf(rest.body)]).toEqual(ids);
    expect(rest.body.next_cursor).toBeNull();
    expect(first.body.data.map(({ position }: { position: number }) => position)).toEqual([5, 4]);
    expect(await stranger.call('GET', '/builds')).toMatchObject({ status: 200, body: { data: [], next_cursor: null } });
    await caller.call('DELETE', `/builds/${ids[1]}`);
    expect(idsOf((await caller.call('GET', '/builds?status=cancelled')).body)).toEqual([ids[1]]);
    expect(idsOf((await caller.call('GET', '/builds?status=queued')).body)).toEqual(ids.filter((_, i) => i !== 1));
    for (const query of ['limit=0', 'limit=101', 'limit=x', 'limit=1.5', 'status=lost', 'cursor=none']) {
      expect(await caller.call('GET', `/builds?${query}`), query).toMatchObject({
        status: 400,
        body: { code: 'USAGE' },
      });
    }
    expect((await caller.call('GET', '/builds?limit=100')).status).toBe(200);
    expect((await stranger.call('GET', `/builds?cursor=${ids[0]}`)).status).toBe(400);
  });

  it('shows, streams and cancels a build to nobody else', async () => {
    const id = await waiting();
    for (const path of [`/builds/${id}`, `/builds/${id}/logs`]) {
      expect(await stranger.call('GET', path)).toMatchObject({
        status: 404,
        type: 'application/json',
        body: { code: 'NOT_FOUND', message: expect.any(String), errors: [expect.any(Object)] },
      });
      const nobody = await (await test.caller(null)).call('GET', path);
      expect(nobody).toMatchObject({ status: 401, body: { code: 'UNAUTHORIZED', errors: [expect.any(Object)] } });
    }
    expect((await stranger.call('DELETE', `/builds/${id}`)).status).toBe(204);
    expect((await caller.call('GET', `/builds/${id}`)).body).toMatchObject({ status: 'queued', position: 1 });
    for (let i = 0; i < 2; i++) expect((await caller.call('DELETE', `/builds/${id}`)).status).toBe(204);
    expect((await caller.call('DELETE', '/builds/unknown')).status).toBe(204);
    expect((await caller.call('GET', `/builds/${id}`)).body).toMatchObject({
      status: 'cancelled',
      position: null,
      error: { code: 'BUILD_CANCELLED' },
    });
  });

  it('goes on with a log behind the line that a client has, told by header or query', async () => {
    const id = await waiting();
    const { imageBuilds } = test.server.metadata;
    const claim = (await imageBuilds.claim({ trusts: ['tenant'], running: 9, runningPerNamespace: 9, leaseMs: 1e6 }))!;
    await imageBuilds.appendLog(claim, ['one', 'two', 'three']);
    await imageBuilds.finish(claim, { status: 'failed', problem: { code: 'BUILD_FAILED', message: 'no' } });
    const log = async (query = '', lastEventId?: string) => {
      const response = await caller.fetch(`${ORIGIN}/builds/${id}/logs${query}`, {
        headers: {
          authorization: `Bearer ${caller.key}`,
          ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
        },
      });
      const { headers } = response;
      expect([headers.get('content-type'), headers.get('cache-control'), headers.get('x-accel-buffering')]).toEqual([
        'text/event-stream',
        'no-store, no-transform',
        'no',
      ]);
      return [...(await response.text()).matchAll(/^id: (\d+)$/gm)].map(([, number]) => Number(number));
    };
    expect(await log()).toEqual([1, 2, 3, 4]);
    expect(await log('', '2')).toEqual([3, 4]);
    expect(await log('?after=1')).toEqual([2, 3, 4]);
    expect(await log('?after=1', '3')).toEqual([4]);
    for (const odd of ['x', '-1', '1e9', '', '9'.repeat(16)]) expect(await log('', odd), odd).toEqual([1, 2, 3, 4]);
  });

  it('answers a submission that is sent again with its build, and refuses the key for another one', async () => {
    const id = await waiting('app', 'key-1');
    const again = await send(caller, { image_name: 'app' }, { 'idempotency-key': 'key-1' });
    expect([again.status, await again.json()]).toMatchObject([202, { build_id: id, status: 'queued', position: 1 }]);
    const another = await send(caller, { image_name: 'other' }, { 'idempotency-key': 'key-1' });
    expect([another.status, await another.json()]).toMatchObject([409, { code: 'CONFLICT', details: { buildId: id } }]);
    for (const key of ['a b', 'x'.repeat(256)]) {
      const bad = await send(caller, { image_name: 'app' }, { 'idempotency-key': key });
      expect([bad.status, await bad.json()]).toMatchObject([400, { code: 'USAGE' }]);
    }
  });

  it('never runs a build of somebody with a key on the engine of the operator, and keeps nothing of it', async () => {
    const { body } = await caller.call('GET', '/builds');
    expect(body.data).toEqual([]);
    for (const as of [caller, stranger]) {
      const answer = await send(
        as,
        { image_name: 'app', dockerfile_text: 'FROM scratch\n' },
        { 'idempotency-key': 'k' },
      );
      expect([answer.status, await answer.json()]).toMatchObject([503, { code: 'BUILD_ISOLATION_UNAVAILABLE' }]);
    }
    const [scratch = ''] = await readdir(join(test.directory, 'scratch'));
    expect(await readdir(join(test.directory, 'scratch', scratch))).toEqual([]);
    expect((await caller.call('GET', '/builds')).body.data).toEqual([]);
  });
});
