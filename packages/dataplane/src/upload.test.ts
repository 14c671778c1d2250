import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';

import {
  blobSignRequestSchema,
  DecantError,
  toDecantError,
  type Fetch,
  type ObjectStore,
  type SignedMultipart,
} from '@decant/core';
import { createHttpClient, problemResponse } from '@decant/transport';
import { createNodeFetch } from '@decant/transport/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { signDownload, uploadArtifact } from './blob-client.ts';
import { createFileObjectStore } from './file-store.ts';
import { createObjectGateway } from './gateway.ts';
import { blobPartSource, filePartSource, type PartSource } from './part-source.ts';
import { createBlobSigner } from './signer.ts';
import { uploadMultipart } from './upload.ts';

const credentials = { accessKeyId: 'AK', secretAccessKey: 'secret' };
const namespacePrefix = 'ns/acme/';
const key = 'ns/acme/staging/b1/pack';
const code = (expected: string) => expect.objectContaining({ code: expected });
const fast = { attempts: 4, firstDelayMs: 1, maxDelayMs: 2 };

let directory: string;
let store: ObjectStore;
let clock: number;
let baseUrl: string;
/** Requests that are being answered: whoever gave up on one does not wait for what the store still does with it. */
const answering = new Set<Promise<Response>>();

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'decant-upload-'));
  store = createFileObjectStore({ directory: join(directory, 'store'), fsync: 'never' });
  clock = Date.now();
  baseUrl = 'http://decant.test';
});
afterEach(async () => {
  await Promise.all(answering);
  await rm(directory, { recursive: true });
});

/** What a server does with the two halves: the sign call and the gateway. */
function createHandler(): (request: Request) => Promise<Response> {
  const now = () => clock;
  const gateway = createObjectGateway({ store, credentials, region: 'local', basePath: '/objects', now });
  const signer = createBlobSigner({
    store,
    credentials,
    region: 'local',
    bucket: 'main',
    publicBaseUrl: () => `${baseUrl}/objects`,
    now,
  });
  const answer = async (request: Request): Promise<Response> => {
    if (new URL(request.url).pathname.startsWith('/objects/')) return gateway(request);
    try {
      const asked = blobSignRequestSchema.parse(await request.json());
      return Response.json(await signer.sign({ namespacePrefix, request: asked }));
    } catch (error) {
      return problemResponse(toDecantError(error));
    }
  };
  return (request) => {
    const answered = answer(request).finally(() => answering.delete(answered));
    answering.add(answered);
    return answered;
  };
}

const inProcess = (): Fetch => {
  const handler = createHandler();
  return (input, init) => handler(new Request(input, init));
};

async function sign(parts: number, partSizeBytes: number): Promise<SignedMultipart> {
  const signer = createBlobSigner({
    store,
    credentials,
    region: 'local',
    bucket: 'main',
    publicBaseUrl: `${baseUrl}/objects`,
    now: () => clock,
  });
  const op = { kind: 'put_artifact', multipart_hint: { max_parts: parts, part_size_bytes: partSizeBytes } } as const;
  const request = { target: { kind: 'artifact', rel_path: key }, op } as const;
  return (await signer.sign({ namespacePrefix, request })) as SignedMultipart;
}

const partOf = (input: string | URL | Request): string | null =>
  new URL(input instanceof Request ? input.url : input).searchParams.get('partNumber');

const leftovers = async (): Promise<string[]> => {
  await Promise.all(answering);
  const areas = await Promise.all(
    ['uploads', 'joining', 'temp'].map((area) => readdir(join(directory, 'store', area)).catch(() => [])),
  );
  return areas.flat();
};

describe('uploadMultipart', () => {
  it('sends parts side by side and completes them in order', async () => {
    const body = randomBytes(10_500);
    const signed = await sign(11, 1000);
    const fetch = inProcess();
    let running = 0;
    let most = 0;
    const counted: Fetch = async (input, init) => {
      most = Math.max(most, ++running);
      try {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
        return await fetch(input, init);
      } finally {
        running--;
      }
    };
    const seen: number[] = [];
    const result = await uploadMultipart({
      signed,
      source: blobPartSource(body),
      fetch: counted,
      concurrency: 4,
      onBytes: (bytes) => seen.push(bytes),
    });
    expect(result).toEqual({ uri: `decant://main/${key}`, uploadedBytes: 10_500 });
    expect(Buffer.from(await store.get(key))).toEqual(body);
    expect(most).toBe(4);
    expect(seen.length).toBe(11);
    expect(seen.at(-1)).toBe(10_500);
    expect(await leftovers()).toEqual([]);
  });

  it('sends nothing as one empty part, and a whole number of parts as that many', async () => {
    await uploadMultipart({ signed: await sign(2, 5), source: blobPartSource(new Uint8Array()), fetch: inProcess() });
    expect(await store.head(key)).toEqual({ key, sizeBytes: 0 });
    await uploadMultipart({
      signed: await sign(2, 5),
      source: blobPartSource(Buffer.from('1234567890')),
      fetch: inProcess(),
    });
    expect(await store.head(key)).toEqual({ key, sizeBytes: 10 });
  });

  it('sends a source that streams', async () => {
    const body = randomBytes(3000);
    const source: PartSource = {
      sizeBytes: body.length,
      part: (offset, length) => new Blob([body.subarray(offset, offset + length)]).stream(),
    };
    await uploadMultipart({ signed: await sign(3, 1000), source, fetch: inProcess() });
    expect(Buffer.from(await store.get(key))).toEqual(body);
  });

  it('repeats parts and completions whose requests or answers were lost', async () => {
    const fetch = inProcess();
    const failed = new Map<string, number>();
    const flaky: Fetch = async (input, init) => {
      const id = `${init?.method} ${partOf(input)}`;
      const times = (failed.get(id) ?? 0) + 1;
      failed.set(id, times);
      if (times === 1) throw new TypeError('fetch failed');
      if (times === 2) return new Response('busy', { status: 503 });
      const response = await fetch(input, init);
      if (times === 3) throw new TypeError('the answer was lost');
      return response;
    };
    const body = randomBytes(2500);
    const options = { signed: await sign(3, 1000), source: blobPartSource(body), fetch: flaky, retry: fast };
    expect((await uploadMultipart(options)).uploadedBytes).toBe(2500);
    expect(Buffer.from(await store.get(key))).toEqual(body);
    expect(Object.fromEntries(failed)).toEqual({ 'PUT 1': 4, 'PUT 2': 4, 'PUT 3': 4, 'POST null': 4 });
  });

  it('takes an error document under status 200 for the error it is', async () => {
    const fetch = inProcess();
    let posts = 0;
    const odd: Fetch = (input, init) => {
      if (init?.method !== 'POST' || ++posts > 1) return fetch(input, init);
      return Promise.resolve(new Response('<Error><Code>InternalError</Code><Message>try again</Message></Error>'));
    };
    await uploadMultipart({
      signed: await sign(1, 10),
      source: blobPartSource(randomBytes(9)),
      fetch: odd,
      retry: fast,
    });
    expect(posts).toBe(2);
    const lost: Fetch = (input, init) =>
      init?.method === 'POST' && ++posts > 0
        ? Promise.resolve(new Response('<Error><Code>InvalidPart</Code><Message>part 1</Message></Error>'))
        : fetch(input, init);
    const final = uploadMultipart({
      signed: await sign(1, 10),
      source: blobPartSource(randomBytes(9)),
      fetch: lost,
      retry: fast,
    });
    await expect(final).rejects.toEqual(code('UPLOAD_INVALID'));
    expect(posts).toBe(3);
    const wrong: Fetch = (input, init) =>
      init?.method === 'POST' ? Promise.resolve(new Response('<html>hello</html>')) : fetch(input, init);
    const again = uploadMultipart({
      signed: await sign(1, 10),
      source: blobPartSource(randomBytes(9)),
      fetch: wrong,
      retry: fast,
    });
    await expect(again).rejects.toEqual(code('HTTP_BODY_INVALID'));
  });

  it('does not complete an upload whose parts got no ETag, nor send them again', async () => {
    const fetch = inProcess();
    const asked: (string | undefined)[] = [];
    const hiding: Fetch = async (input, init) => {
      asked.push(init?.method);
      const response = await fetch(input, init);
      return init?.method === 'PUT' ? new Response(null, { headers: { etag: '""' } }) : response;
    };
    const options = { signed: await sign(1, 10), source: blobPartSource(randomBytes(9)), fetch: hiding, retry: fast };
    await expect(uploadMultipart(options)).rejects.toMatchObject({
      code: 'HTTP_BODY_INVALID',
      hint: expect.stringContaining('ETag') as string,
    });
    expect(asked).toEqual(['PUT', 'DELETE']);
  });

  it('drops the upload when a part fails for good', async () => {
    const fetch = inProcess();
    const refusing: Fetch = (input, init) =>
      partOf(input) === '3' ? Promise.resolve(new Response('no', { status: 400 })) : fetch(input, init);
    const upload = uploadMultipart({
      signed: await sign(5, 10),
      source: blobPartSource(randomBytes(50)),
      fetch: refusing,
    });
    await expect(upload).rejects.toEqual(expect.objectContaining({ code: 'HTTP_STATUS', retryable: false }));
    expect(await store.head(key)).toBeUndefined();
    expect(await leftovers()).toEqual([]);
  });

  it('does not wait for the other parts when one fails for good', async () => {
    const fetch = inProcess();
    const odd: Fetch = (input, init) => {
      if (init?.method !== 'PUT') return fetch(input, init);
      return partOf(input) === '2'
        ? Promise.resolve(new Response('no', { status: 400 }))
        : new Promise(() => undefined);
    };
    const upload = uploadMultipart({ signed: await sign(9, 10), source: blobPartSource(randomBytes(90)), fetch: odd });
    await expect(upload).rejects.toEqual(code('HTTP_STATUS'));
    expect(await leftovers()).toEqual([]);
  });

  it('drops the upload when it is aborted, and throws the reason', async () => {
    const fetch = inProcess();
    const abort = new AbortController();
    const hanging: Fetch = (input, init) => {
      if (partOf(input) !== '2') return fetch(input, init);
      setTimeout(() => abort.abort(new Error('stop it')), 5);
      return new Promise(() => undefined);
    };
    const options = { signed: await sign(3, 10), source: blobPartSource(randomBytes(30)), fetch: hanging };
    await expect(uploadMultipart({ ...options, signal: abort.signal })).rejects.toThrow('stop it');
    expect(await store.head(key)).toBeUndefined();
    expect(await leftovers()).toEqual([]);
  });

  it('says when the URLs have expired or were changed', async () => {
    const signed = await sign(1, 10);
    const options = { source: blobPartSource(randomBytes(5)), fetch: inProcess(), retry: fast };
    const changed = { ...signed, partUrls: [signed.partUrls[0]!.replace('/staging/', '/packs/')] };
    await expect(uploadMultipart({ ...options, signed: changed })).rejects.toEqual(code('SIGN_URL_INVALID'));
    clock += 2 * 24 * 3600 * 1000;
    await expect(uploadMultipart({ ...options, signed })).rejects.toEqual(code('SIGN_URL_EXPIRED'));
  });

  it('says when fewer parts were signed than are needed', async () => {
    const upload = uploadMultipart({
      signed: await sign(2, 10),
      source: blobPartSource(randomBytes(21)),
      fetch: inProcess(),
    });
    await expect(upload).rejects.toEqual(code('LIMIT_EXCEEDED'));
    expect(await leftovers()).toEqual([]);
  });

  it('does not repeat a part for a full disk', async () => {
    let puts = 0;
    const full: ObjectStore = {
      ...store,
      putPart: () => {
        puts++;
        return Promise.reject(new DecantError('DISK_FULL', 'No space.'));
      },
    };
    const gateway = createObjectGateway({ store: full, credentials, region: 'local', basePath: '/objects' });
    const fetch: Fetch = (input, init) => gateway(new Request(input, init));
    const upload = uploadMultipart({
      signed: await sign(1, 10),
      source: blobPartSource(randomBytes(5)),
      fetch,
      retry: fast,
    });
    await expect(upload).rejects.toEqual(expect.objectContaining({ code: 'DISK_FULL', retryable: false }));
    expect(puts).toBe(1);
  });

  it('notices that a file changed while it was sent', async () => {
    const path = join(directory, 'file');
    await writeFile(path, randomBytes(1000));
    const source = await filePartSource(path);
    await writeFile(path, randomBytes(900));
    const upload = uploadMultipart({ signed: await sign(1, 1000), source, fetch: inProcess(), retry: fast });
    await expect(upload).rejects.toThrow();
    expect(await store.head(key)).toBeUndefined();
    await expect(filePartSource(join(directory, 'none'))).rejects.toEqual(code('NOT_FOUND'));
  });
});

describe('uploadArtifact', () => {
  it('signs, sends and can be read back, in process', async () => {
    const fetch = inProcess();
    const client = createHttpClient({ baseUrl, fetch });
    const result = await uploadArtifact({ client, fetch, relPath: key, source: blobPartSource(Buffer.from('hello')) });
    const signed = await signDownload(client, result.uri);
    expect(await (await fetch(signed.url)).text()).toBe('hello');
  });

  it('passes on why it may not', async () => {
    const fetch = inProcess();
    const client = createHttpClient({ baseUrl, fetch });
    const upload = uploadArtifact({
      client,
      fetch,
      relPath: 'ns/other/x',
      source: blobPartSource(Buffer.from('hello')),
    });
    await expect(upload).rejects.toEqual(code('SIGN_PATH_FORBIDDEN'));
  });

  it('does the same over HTTP, with files', async () => {
    const handler = createHandler();
    const server = createServer((incoming, outgoing) => {
      void (async () => {
        const hasBody = incoming.method !== 'GET' && incoming.method !== 'HEAD';
        const request = new Request(`http://${incoming.headers.host}${incoming.url}`, {
          method: incoming.method!,
          headers: incoming.headers as Record<string, string>,
          ...(hasBody ? { body: Readable.toWeb(incoming) as ReadableStream<Uint8Array>, duplex: 'half' } : {}),
        });
        const response = await handler(request);
        outgoing.writeHead(response.status, Object.fromEntries(response.headers));
        if (response.body === null) outgoing.end();
        else Readable.fromWeb(response.body).pipe(outgoing);
      })();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await using http = createNodeFetch();
    const { fetch } = http;
    try {
      const body = randomBytes(3 * 1024 * 1024 + 17);
      const path = join(directory, 'file');
      await writeFile(path, body);
      const client = createHttpClient({ baseUrl, fetch });
      const source = await filePartSource(path);
      const { uri } = await uploadArtifact({ client, fetch, relPath: key, source });
      const small = await sign(4, 1024 * 1024);
      await uploadMultipart({ signed: { ...small, uri }, source, fetch });
      const { url } = await signDownload(client, uri);
      expect(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(body)).toBe(true);
      const range = await fetch(url, { headers: { range: 'bytes=100-199' } });
      expect(range.status).toBe(206);
      expect(Buffer.from(await range.arrayBuffer())).toEqual(body.subarray(100, 200));
      await writeFile(path, body.subarray(1));
      const changed = uploadMultipart({ signed: await sign(4, 1024 * 1024), source, fetch, retry: fast });
      await expect(changed).rejects.toEqual(code('UPLOAD_INVALID'));
      // What was cut off may still be on its way to the server.
      await expect.poll(leftovers).toEqual([]);
    } finally {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  });
});
