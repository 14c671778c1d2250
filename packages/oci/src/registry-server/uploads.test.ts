import { beforeEach, describe, expect, it } from 'vitest';

import { digestOf } from '../testing/make-layout.ts';
import { MemoryStore } from '../testing/memory-store.ts';
import { createRegistryHandler, type RegistryHandler, type RegistryHandlerOptions } from './handler.ts';

const BLOB = Buffer.from('the bytes of a blob');

let store: MemoryStore;
let handler: RegistryHandler;
const open = (options: Partial<RegistryHandlerOptions> = {}) => {
  handler = createRegistryHandler({ store, ...options });
};
beforeEach(() => {
  store = new MemoryStore();
  open();
});

async function call(method: string, path: string, body?: Uint8Array | ReadableStream<Uint8Array>) {
  const content = body === undefined ? {} : { body: body as ReadableStream<Uint8Array<ArrayBuffer>>, duplex: 'half' };
  const response = await handler(new Request(`http://h${path}`, { method, ...content } as RequestInit));
  const text = await response.text();
  const code = /^\{"errors":\[\{"code":"(\w+)"/.exec(text)?.[1];
  return { status: response.status, headers: response.headers, code };
}

async function begin(): Promise<string> {
  return (await call('POST', '/v2/app/blobs/uploads/')).headers.get('location')!;
}

/** A body whose only piece comes when it is let go; `read` settles when it is asked for. */
function held(bytes: Uint8Array) {
  const read = Promise.withResolvers<void>();
  const letGo = Promise.withResolvers<void>();
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        read.resolve();
        await letGo.promise;
        controller.enqueue(bytes);
        controller.close();
      },
    },
    { highWaterMark: 0 },
  );
  return { body, read: read.promise, letGo: letGo.resolve };
}

describe('an upload', () => {
  it('is written to by one request at a time', async () => {
    const upload = await begin();
    const { body, read, letGo } = held(BLOB);
    const first = call('PATCH', upload, body);
    await read;
    expect(await call('PATCH', upload, BLOB)).toMatchObject({ status: 400, code: 'BLOB_UPLOAD_INVALID' });
    const finish = `${upload}?digest=${digestOf(BLOB)}`;
    expect(await call('PUT', finish)).toMatchObject({ status: 400, code: 'BLOB_UPLOAD_INVALID' });
    expect(await call('DELETE', upload)).toMatchObject({ status: 400, code: 'BLOB_UPLOAD_INVALID' });
    letGo();
    expect((await first).headers.get('range')).toBe(`0-${BLOB.length - 1}`);
    expect(await call('PUT', finish)).toMatchObject({ status: 201 });
  });

  it('has an id of the form that the registry gives', async () => {
    await begin();
    store.objects.set('registry/repositories/app/_uploads/x/begun', new Uint8Array());
    store.objects.set('registry/repositories/app/_uploads/a/b/begun', new Uint8Array());
    for (const id of ['x', 'a%2Fb']) {
      expect((await call('PATCH', `/v2/app/blobs/uploads/${id}`, BLOB)).status).toBe(404);
    }
  });

  it('does not go for its age while it is written to', async () => {
    open({ limits: { uploadAgeMs: -1000 } });
    const upload = await begin();
    const { body, read, letGo } = held(BLOB);
    const sent = call('PATCH', upload, body);
    await read;
    const other = await begin();
    letGo();
    expect(await sent).toMatchObject({ status: 202 });
    expect(await call('PUT', `${upload}?digest=${digestOf(BLOB)}`)).toMatchObject({ status: 201 });
    await begin();
    expect(await call('GET', other)).toMatchObject({ status: 404 });
  });

  it('ends where a part is missing, and has so many parts at most', async () => {
    const upload = await begin();
    const [begun] = [...store.objects.keys()];
    const part = (offset: number, lengthBytes: number) =>
      store.objects.set(begun!.replace('begun', String(offset).padStart(16, '0')), Buffer.alloc(lengthBytes, 'x'));
    part(0, 5);
    part(7, 5);
    const { status, headers } = await call('GET', upload);
    expect([status, headers.get('range')]).toEqual([204, '0-4']);
    for (let offset = 5; offset < 10_004; offset++) part(offset, 1);
    expect(await call('PATCH', upload, BLOB)).toMatchObject({ status: 400, code: 'BLOB_UPLOAD_INVALID' });
    store.objects.delete(begun!.replace('begun', String(10_003).padStart(16, '0')));
    expect(await call('PATCH', upload, BLOB)).toMatchObject({ status: 202 });
  });
});
