import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { gunzipSync } from 'node:zlib';

import { createNodeFetch, type NodeFetch } from '@decant/transport/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { createRemoteBuilder, type RemoteBuildResult } from './builder.ts';
import { memoryContext } from './remote-context.ts';
import { scriptedService, type ScriptedService } from './scripted-service.fixture.ts';

const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return gunzipSync(Buffer.concat(pieces));
}

/** Contents by digest of a body of records: digest, length, bytes. */
function recordsOf(body: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < body.length;) {
    const size = Number(body.readBigUInt64BE(at + 32));
    records.set(body.toString('hex', at, at + 32), body.toString('utf8', at + 40, at + 40 + size));
    at += 40 + size;
  }
  return records;
}

describe('a context by its files', () => {
  let service: ScriptedService;
  let http: NodeFetch;
  /** What the service has, by digest. */
  let stored: Map<string, string>;
  /** Bodies of uploads that arrived whole. */
  let uploads: Map<string, string>[];
  /** Answers a question after a context, or an upload, instead of the service when it returns true. */
  let asked: (contextId: string, response: ServerResponse) => boolean;
  let uploading: (request: IncomingMessage) => boolean;

  const files = [
    { path: 'Dockerfile', content: 'FROM scratch\nCOPY . /\n' },
    { path: 'a', content: 'one' },
    { path: 'b/again', content: 'one' },
    { path: 'b/c', content: 'two' },
  ];
  /** More than one upload holds. */
  const big = 'x'.repeat(9_000_000);
  const json = (response: ServerResponse, body: unknown) =>
    void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  const build = async (
    given: Parameters<typeof memoryContext>[0] = files,
    options: { readonly transfer?: 'auto' | 'files'; readonly signal?: AbortSignal } = {},
  ): Promise<RemoteBuildResult> => {
    const builder = createRemoteBuilder({ baseUrl: service.url, fetch: http.fetch, patienceMs: 300 });
    const { transfer = 'files', signal } = options;
    const generator = builder.build({ context: memoryContext(given), transfer }, { signal });
    for (;;) {
      const step = await generator.next();
      if (step.done === true) return step.value;
    }
  };

  beforeEach(async () => {
    service = await scriptedService();
    http = createNodeFetch();
    stored = new Map();
    uploads = [];
    asked = () => false;
    uploading = () => false;
    service.intercept = (request, response) => {
      const { url = '' } = request;
      if (!url.startsWith('/builds/contexts')) return false;
      void (async () => {
        if (url.endsWith('/files')) {
          if (uploading(request)) return;
          const records = recordsOf(await bodyOf(request));
          uploads.push(records);
          for (const [digest, content] of records) stored.set(digest, content);
          response.writeHead(204).end();
          return;
        }
        const manifest = await bodyOf(request);
        const contextId = sha256(manifest);
        if (asked(contextId, response)) return;
        const { entries } = JSON.parse(manifest.toString()) as { entries: { sha256?: string }[] };
        const wanted = new Set(entries.flatMap((entry) => entry.sha256 ?? []));
        json(response, { context_id: contextId, missing: [...wanted].filter((digest) => !stored.has(digest)) });
      })().catch(() => response.destroy());
      return true;
    };
  });
  afterEach(async () => {
    await service[Symbol.asyncDispose]();
    await http.close();
  });

  it('sends what the service lacks, equal files once, and names the context in the submission', async () => {
    const { sentBytes } = await build();
    const contents = [files[0]!.content, 'one', 'two'];
    expect(uploads).toEqual([new Map(contents.map((text) => [sha256(text), text]))]);
    expect(sentBytes).toBe(contents.join('').length);
    expect(service.submissions).toMatchObject([
      { tar: undefined, fields: { context_id: expect.stringMatching(/^[0-9a-f]{64}$/) as string } },
    ]);
    const changed = await build(files.map((file) => (file.path === 'b/c' ? { ...file, content: 'changed' } : file)));
    expect(uploads[1]).toEqual(new Map([[sha256('changed'), 'changed']]));
    expect(changed.sentBytes).toBe('changed'.length);
    expect((await build()).sentBytes).toBe(0);
    expect(uploads).toHaveLength(2);
  });

  it('goes on with what has not arrived when an upload is cut', async () => {
    const more = [...files, { path: 'z1', content: big }, { path: 'z2', content: `${big}y` }];
    let cuts = 0;
    uploading = (request) => {
      if (uploads.length !== 1 || cuts++ > 0) return false;
      request.once('data', () => request.socket.destroy());
      return true;
    };
    await build(more);
    expect(cuts).toBeGreaterThan(0);
    const sent = uploads.flatMap((records) => [...records.keys()]);
    expect(sent.toSorted()).toEqual([...new Set(more.map(({ content }) => sha256(content)))].toSorted());
  });

  it.each([404, 405, 501])('is sent as an archive to a service that answers %i', async (status) => {
    asked = (_, response) => (response.writeHead(status).end(), true);
    await build();
    expect(service.submissions[0]!.tar).toBeDefined();
    expect(service.submissions[0]!.fields).not.toHaveProperty('context_id');
  });

  it('is asked about by itself from a mebibyte on', async () => {
    await build(files, { transfer: 'auto' });
    expect(service.requests).not.toContain('POST /builds/contexts');
    await build([...files, { path: 'z', content: big }], { transfer: 'auto' });
    expect(service.requests).toContain('POST /builds/contexts');
  });

  it.each([
    ['gives it another id', () => ({ context_id: '0'.repeat(64), missing: [] }), 'another id'],
    ['wants a file it does not have', (id: string) => ({ context_id: id, missing: ['0'.repeat(64)] }), 'does not have'],
    ['wants what it was sent', (id: string) => ({ context_id: id, missing: [sha256('one')] }), 'keeps asking'],
  ])('is not sent to a service that %s', async (_, answer, message) => {
    asked = (contextId, response) => (json(response, answer(contextId)), true);
    await expect(build()).rejects.toMatchObject({
      code: 'HTTP_BODY_INVALID',
      message: expect.stringContaining(message) as string,
    });
    expect(service.submissions).toEqual([]);
    expect(uploads.length).toBeLessThan(10);
  });

  it('ends with the reason of an abort', async () => {
    const controller = new AbortController();
    uploading = () => (controller.abort(new Error('enough')), true);
    await expect(build(files, { signal: controller.signal })).rejects.toThrow('enough');
    expect(service.submissions).toEqual([]);
  });
});
