import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { readSubmission } from './submission.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'submission-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** The body is made before it is read: a form that is still being written cannot be cut off cleanly. */
async function read(
  body: ConstructorParameters<typeof Response>[0],
  headers: Record<string, string> = {},
  contextBytes = 1000,
) {
  // One of its own, as the service gives each: what was refused may still be opening its file.
  const scratch = await mkdtemp(join(directory, 'read-'));
  const whole = new Response(body);
  const type = whole.headers.get('content-type');
  const bytes = await whole.arrayBuffer();
  const sent = new Request('http://h/builds', {
    method: 'POST',
    body: bytes,
    headers: { ...(type === null ? {} : { 'content-type': type }), ...headers },
  });
  return readSubmission(sent, scratch, { contextBytes });
}

function form(
  fields: Record<string, string>,
  context: Uint8Array<ArrayBuffer> | undefined = new Uint8Array([1, 2, 3]),
) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) data.append(name, value);
  if (context !== undefined)
    data.append('context', new Blob([context], { type: 'application/gzip' }), 'context.tar.gz');
  return data;
}

describe('a submission', () => {
  it('is read with the defaults of what is left out or empty', async () => {
    const { fields, context } = await read(form({ image_name: 'app', build_args: '', cache_key: '' }));
    expect(fields).toEqual({
      image_name: 'app',
      dockerfile: 'Dockerfile',
      build_args: {},
      nydus_convert: true,
      cache: 'use',
    });
    expect(context).toMatchObject({ sizeBytes: 3 });
    expect(await readFile(context!.file)).toEqual(Buffer.from([1, 2, 3]));
  });

  it('takes all fields and ignores those it does not know', async () => {
    const sent = {
      dockerfile: 'd/F',
      build_args: '{"A":"b c"}',
      nydus_convert: 'false',
      cache_key: 'team/x',
      new: '1',
    };
    const { fields } = await read(form({ image_name: 'app:v1', ...sent }));
    expect(fields).toMatchObject({
      image_name: 'app:v1',
      dockerfile: 'd/F',
      build_args: { A: 'b c' },
      nydus_convert: false,
      cache_key: 'team/x',
    });
  });

  it.each<[string, Record<string, string>, string[]]>([
    ['no name', {}, ['image_name']],
    ['arguments that are no JSON', { image_name: 'a', build_args: '{' }, ['build_args']],
    ['arguments that are no strings', { image_name: 'a', build_args: '{"a":1}' }, ['build_args', 'a']],
    ['no boolean', { image_name: 'a', nydus_convert: 'maybe' }, ['nydus_convert']],
    ['a bad cache key', { image_name: 'a', cache_key: 'A:b' }, ['cache_key']],
    ['a bad architecture', { image_name: 'a', architecture: 'riscv64' }, ['architecture']],
  ])('is refused with %s, by the field', async (_, fields, path) => {
    await expect(read(form(fields))).rejects.toMatchObject({ code: 'USAGE', details: { path } });
  });

  it('is refused when the context is too large, when fields repeat or are too large', async () => {
    await expect(read(form({ image_name: 'a' }, new Uint8Array(1001)))).rejects.toMatchObject({
      code: 'BUILD_CONTEXT_BYTES',
      details: { limit: 1000 },
    });
    expect((await read(form({ image_name: 'a' }, new Uint8Array(1000)))).context?.sizeBytes).toBe(1000);
    const twice = form({ image_name: 'a' });
    twice.append('image_name', 'b');
    await expect(read(twice)).rejects.toMatchObject({ code: 'USAGE' });
    // What is as large as it may be is whole; what is larger is not cut.
    const inline = (bytes: number) => read(form({ image_name: 'a', dockerfile_text: '#'.repeat(bytes) }));
    expect((await inline(2 ** 20)).fields.dockerfile_text).toHaveLength(2 ** 20);
    await expect(inline(2 ** 20 + 1)).rejects.toMatchObject({
      code: 'USAGE',
      message: 'The field dockerfile_text has more than 1.0 MiB.',
    });
    const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`f${i}`, 'x']));
    expect((await read(form({ image_name: 'a', ...many(31) }))).fields.image_name).toBe('a');
    await expect(read(form({ image_name: 'a', ...many(32) }))).rejects.toMatchObject({
      code: 'USAGE',
      message: 'The form has more than 32 fields.',
    });
    const two = form({ image_name: 'a' });
    two.append('context', new Blob([Uint8Array.of(4)]));
    await expect(read(two)).rejects.toMatchObject({ code: 'USAGE', message: 'The form has more than one context.' });
  });

  it('has its context in a file of its owner, with its digest, whatever else its parts say', async () => {
    const boundary = 'b0undary';
    const part = (name: string, content: string, more = '') =>
      `--${boundary}\r\ncontent-disposition: form-data; name="${name}"${more}\r\n\r\n${content}\r\n`;
    const body = [
      part('image_name', 'app', '; filename="name.txt"\r\ncontent-type: application/octet-stream'),
      part('context', 'the bytes'),
      `--${boundary}--\r\n`,
    ].join('');
    const headers = { 'content-type': `multipart/form-data; boundary=${boundary}` };
    const { fields, context } = await read(body, headers);
    expect(fields.image_name).toBe('app');
    expect(context).toMatchObject({
      sizeBytes: 9,
      sha256: createHash('sha256').update('the bytes').digest('hex'),
    });
    expect((await stat(context!.file)).mode & 0o777).toBe(0o600);
  });

  it('that its sender breaks off ends with the reason of that', async () => {
    const controller = new AbortController();
    const reason = new Error('gone');
    const whole = Buffer.from(await new Response(form({ image_name: 'app' })).arrayBuffer());
    const boundary = /^--(\S+)/.exec(whole.toString('latin1'))![1]!;
    const sent = new Request('http://h/builds', {
      method: 'POST',
      body: new ReadableStream({
        start: (stream) => stream.enqueue(whole.subarray(0, whole.length - 40)),
        pull(stream) {
          controller.abort(reason);
          stream.error(new TypeError('terminated'));
        },
      }),
      headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
      signal: controller.signal,
      duplex: 'half',
    });
    await expect(readSubmission(sent, directory, { contextBytes: 1000 })).rejects.toBe(reason);
  });

  it('is refused in bounded time whatever is broken in it', async () => {
    const whole = Buffer.from(await new Response(form({ image_name: 'app' })).arrayBuffer());
    const boundary = /^--(\S+)/.exec(whole.toString('latin1'))![1]!;
    const headers = { 'content-type': `multipart/form-data; boundary=${boundary}` };
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 3), fc.nat(255), fc.boolean(), async (at, value, cut) => {
        const bytes = cut ? whole.subarray(0, at) : Buffer.from(whole);
        if (!cut) bytes[at] = value;
        await read(new Uint8Array(bytes), headers).then(
          ({ fields }) => expect(fields.image_name).not.toBe(''),
          (error: unknown) =>
            expect(error).toMatchObject({
              code: expect.stringMatching(/^(USAGE|NAME_INVALID|BUILD_CONTEXT_INVALID)$/),
            }),
        );
      }),
      { numRuns: 200 },
    );
    await expect(read('x', { 'content-type': 'text/plain' })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(read('x', { 'content-type': 'multipart/form-data' })).rejects.toMatchObject({ code: 'USAGE' });
  });
});
