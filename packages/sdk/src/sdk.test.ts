import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import {
  createManifestBuilder,
  createPackBuilder,
  encodeLocator,
  type HashProvider,
  type LocatorRecord,
} from '@decant/cas';
import { loadNodeHashProvider } from '@decant/cas/node';
import { imageEnvironment, PAGE_BYTES, toHex, type ChunkId, type Fetch } from '@decant/core';
import * as fc from 'fast-check';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { createDecant, type Decant } from './decant.ts';
import { argumentsOf, workingDirOf } from './guest-command.ts';
import { nameOfPath, parseSource } from './import-source.ts';
import { decantPaths } from './paths.ts';

describe('the source of an import', () => {
  it.each([
    ['oci:dir', { kind: 'oci', path: 'dir', tag: undefined }],
    ['oci:/a/b:v1.0', { kind: 'oci', path: '/a/b', tag: 'v1.0' }],
    ['oci:/a:b/c', { kind: 'oci', path: '/a:b/c', tag: undefined }],
    ['oci:/a:b/c:latest', { kind: 'oci', path: '/a:b/c', tag: 'latest' }],
    ['oci:dir:', { kind: 'oci', path: 'dir:', tag: undefined }],
    ['docker-archive:/x/y:z.tar', { kind: 'docker-archive', path: '/x/y:z.tar' }],
    ['raw:disk.img', { kind: 'raw', path: 'disk.img' }],
  ])('%s', (text, source) => {
    expect(parseSource(text)).toEqual(source);
  });

  it.each(['', 'oci', 'oci:', 'raw:', 'RAW:x', 'tar:', ' raw:x'])('%j is none', (text) => {
    expect(() => parseSource(text)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });

  it.each(['docker://x', 'registry://x', 'docker:a b'])('%j holds no reference', (text) => {
    expect(() => parseSource(text)).toThrow(expect.objectContaining({ code: 'NAME_INVALID' }));
  });

  it.each([
    ['/x/My App.tar', 'my-app'],
    ['disk.ext4', 'disk'],
    ['/x/layout.oci', 'layout'],
    ['/', 'image'],
    ['/x/---.img', 'image'],
    ['a.b.raw', 'a-b'],
  ])('%s is called %s', (path, name) => {
    expect(nameOfPath(path)).toBe(name);
  });
});

describe('what is run', () => {
  const request = (...command: string[]) => ({ ref: 'app', command });

  it('is the entrypoint and the command, of which the caller may replace the second', () => {
    const image = { Entrypoint: ['/entry', '-x'], Cmd: ['default'] };
    expect(argumentsOf(image, request())).toEqual(['/entry', '-x', 'default']);
    expect(argumentsOf(image, request('a', ''))).toEqual(['/entry', '-x', 'a', '']);
    expect(argumentsOf({ Cmd: ['only'] }, request())).toEqual(['only']);
    expect(argumentsOf({ Entrypoint: ['only'] }, request())).toEqual(['only']);
    expect(argumentsOf({}, request('sh'))).toEqual(['sh']);
    expect(() => argumentsOf({}, request())).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });

  it('begins in the directory of the image', () => {
    const of = (WorkingDir: string) => workingDirOf({ WorkingDir });
    expect(['/srv/', '//a/./b/../c//', '/', '/../x', 'relative/', ''].map(of)).toEqual([
      '/srv',
      '/a/c',
      '/',
      '/x',
      'relative/',
      undefined,
    ]);
    expect(workingDirOf({})).toBeUndefined();
  });

  it('sees the environment of the image', () => {
    expect(imageEnvironment({ Env: ['A=1', 'B=', 'C=x=y', 'A=2', '=no', 'none', ''] })).toEqual({
      A: '2',
      B: '',
      C: 'x=y',
    });
    expect(imageEnvironment({})).toEqual({});
  });
});

describe('paths', () => {
  it('follow DECANT_HOME, then XDG_DATA_HOME; an empty variable counts as none', () => {
    expect(decantPaths({ DECANT_HOME: '/d', XDG_DATA_HOME: '/x' })).toEqual({
      home: '/d',
      cache: '/d/cache',
      scratch: '/d/scratch',
    });
    expect(decantPaths({ DECANT_HOME: '', XDG_DATA_HOME: '/x' }).home).toBe('/x/decant');
    expect(decantPaths({}).home).toMatch(/\/decant$/);
    expect(decantPaths({ DECANT_HOME: '/d', TMPDIR: '/t' }).scratch).toMatch(/^\/t\/decant-\d+$/);
  });
});

describe('a session', () => {
  const never: Fetch = () => Promise.reject(new Error('it was called'));
  const paths = decantPaths({ DECANT_HOME: '/nowhere' });

  it('refuses keys and addresses that cannot be ones, before anything is sent', () => {
    for (const token of ['', 'a b', 'a\n', 'é']) {
      expect(() => createDecant({ fetch: never, baseUrl: 'http://x', token, paths })).toThrow(
        expect.objectContaining({ code: 'CONFIG_INVALID' }),
      );
    }
    expect(() => createDecant({ fetch: never, baseUrl: 'ftp://x', paths })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    );
  });

  it('checks names before anything is sent', async () => {
    const { images } = createDecant({ fetch: never, baseUrl: 'http://x', paths });
    const invalid = expect.objectContaining({ code: 'NAME_INVALID' });
    await expect(images.inspect('../keys')).rejects.toEqual(invalid);
    await expect(images.remove('UP')).rejects.toEqual(invalid);
    await expect(images.tag('ok', 'not ok')).rejects.toEqual(invalid);
    await expect(images.import({ source: 'raw:/x', name: 'no!', format: 'ext4' })).rejects.toEqual(invalid);
  });

  it('follows every page of a list', async () => {
    const asked: (string | null)[] = [];
    const image = {
      id: 'i',
      format: 'ext4',
      filesystem: 'ext4',
      layout: 'hinted',
      architecture: null,
      virtualBytes: 1,
      contentBytes: 1,
      chunks: null,
      storedBytes: 1,
      createdAt: '',
    };
    const fetch: Fetch = async (input) => {
      const cursor = new URL(new Request(input).url).searchParams.get('cursor');
      asked.push(cursor);
      const page = cursor === null ? 0 : Number(cursor.slice(1));
      return Response.json({
        images: [{ name: `n${page}`, tag: 't', updatedAt: '', image }],
        nextCursor: page < 2 ? `n${page + 1}` : null,
      });
    };
    const { images } = createDecant({ fetch, baseUrl: 'http://x', paths });
    expect((await images.list()).map(({ name }) => name)).toEqual(['n0', 'n1', 'n2']);
    expect(asked).toEqual([null, 'n1', 'n2']);
  });
});

describe('reading an image back', () => {
  let hash: HashProvider;
  let directory: string;
  beforeAll(async () => {
    hash = await loadNodeHashProvider();
  });
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'sdk-test-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  /** The read plane for one image of these stretches: bytes to fill pages with, or holes. */
  function serve(
    stretches: readonly { fill: number | null; pages: number }[],
    onCheck: () => unknown = () => ({ damaged: [], relocated: false }),
  ) {
    const checked: string[][] = [];
    const manifest = createManifestBuilder(
      { format: 'raw', layout: 'foreign', architecture: null, configDigest: new Uint8Array(32) },
      hash,
    );
    const pack = createPackBuilder({ hash });
    const parts: Uint8Array[] = [];
    const packed = new Set<string>();
    const bytes: Uint8Array[] = [];
    for (const { fill, pages } of stretches) {
      const plain = new Uint8Array(pages * PAGE_BYTES).fill(fill ?? 0);
      bytes.push(plain);
      if (fill === null) {
        manifest.add({ type: 'hole', lengthBytes: plain.length });
        continue;
      }
      const id = toHex(hash.blake3(plain)) as ChunkId;
      manifest.add({ type: 'chunk', id, bytes: plain });
      if (packed.has(id)) continue;
      packed.add(id);
      parts.push(...pack.add({ id, encoding: 'raw', plainBytes: plain.length, stored: plain }));
    }
    const made = manifest.finish();
    const end = pack.count > 0 ? pack.finish() : undefined;
    const rows = new Map([...(end?.table.rows() ?? [])].map(({ id, ...row }) => [id, { ...row, pack: 0 }]));
    const packBytes = Buffer.concat([...parts, end?.bytes ?? new Uint8Array()]);
    const records = Array.from({ length: made.entryCount }, (_, i): LocatorRecord | null => {
      const { id } = made.entry(i);
      return id === null ? null : rows.get(id)!;
    });
    const locator = encodeLocator({ imageId: made.id, packs: end === undefined ? [] : [{ key: 'p' }], records });
    const record = {
      id: made.id,
      format: 'cas-streaming',
      filesystem: 'raw',
      layout: 'foreign',
      architecture: null,
      virtualBytes: made.virtualBytes,
      contentBytes: made.contentBytes,
      chunks: made.chunkCount,
      storedBytes: 1,
      createdAt: '',
    };
    const fetch: Fetch = async (input, init) => {
      const request = new Request(input, init);
      request.signal.throwIfAborted();
      const { pathname } = new URL(request.url);
      if (pathname.endsWith('/manifest')) return new Response(Uint8Array.from(made.bytes));
      if (pathname.endsWith('/locator')) return new Response(Uint8Array.from(locator));
      if (pathname.endsWith('/packs/sign')) {
        const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
        return Response.json({ packs: [{ pack: 0, url: 'http://x/pack' }], expiresAt });
      }
      if (pathname.endsWith('/check')) {
        checked.push(((await request.json()) as { ids: string[] }).ids);
        return Response.json(onCheck());
      }
      if (pathname === '/pack') {
        const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get('range') ?? '') ?? [];
        return new Response(Uint8Array.from(packBytes.subarray(Number(from), Number(to) + 1)), { status: 206 });
      }
      return Response.json({ name: 'a', tag: 'b', updatedAt: '', diskBytes: 0, image: record, config: null });
    };
    const decant: Decant = createDecant({ fetch, baseUrl: 'http://x', paths: decantPaths({ DECANT_HOME: directory }) });
    return { decant, fetch, image: Buffer.concat(bytes), packBytes, checked };
  }

  it('gives the same bytes with and without holes', async () => {
    const stretch = fc.record({
      fill: fc.option(fc.integer({ min: 1, max: 5 })),
      pages: fc.integer({ min: 1, max: 40 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(stretch, { minLength: 1, maxLength: 8 }), async (stretches) => {
        const { decant, image } = serve(stretches);
        for (const sparse of [true, false]) {
          const file = join(directory, 'out');
          const result = await decant.images.export({ ref: 'a', file, sparse });
          expect(result.bytes).toBe(image.length);
          expect((await readFile(file)).equals(image)).toBe(true);
        }
        const { bytes } = await decant.images.verify('a');
        const distinct = new Set(
          stretches.filter(({ fill }) => fill !== null).map(({ fill, pages }) => `${fill} ${pages}`),
        );
        const expected = [...distinct].reduce((sum, each) => sum + Number(each.split(' ')[1]) * PAGE_BYTES, 0);
        expect(bytes).toBe(expected);
      }),
      { numRuns: 15 },
    );
  });

  it('leaves holes where the image has them, and replaces a file whole', async () => {
    const { decant } = serve([
      { fill: 1, pages: 1 },
      { fill: null, pages: 5000 },
      { fill: 2, pages: 1 },
    ]);
    const file = join(directory, 'out');
    await writeFile(file, 'before');
    await chmod(file, 0o600);
    await decant.images.export({ ref: 'a', file, sparse: true });
    const { size, blocks } = await stat(file);
    expect(size).toBe(5002 * PAGE_BYTES);
    expect(blocks * 512).toBeLessThan(100 * PAGE_BYTES);
  });

  it('gives nothing of a damaged image, and leaves what was there', async () => {
    const { decant, packBytes } = serve([
      { fill: 1, pages: 10 },
      { fill: 2, pages: 10 },
    ]);
    packBytes[48 + 15 * PAGE_BYTES]! ^= 1;
    const file = join(directory, 'out');
    await writeFile(file, 'before');
    for (const sparse of [true, false]) {
      await expect(decant.images.export({ ref: 'a', file, sparse })).rejects.toMatchObject({
        code: 'CAS_CHUNK_MISMATCH',
      });
    }
    await expect(decant.images.verify('a')).rejects.toMatchObject({ code: 'CAS_CHUNK_MISMATCH' });
    expect(await readFile(file, 'utf8')).toBe('before');
    expect(await readdir(directory)).toEqual(['out']);
  });

  it('takes no other image for it, whatever the server says', async () => {
    const asked = serve([{ fill: 1, pages: 10 }]);
    const other = serve([{ fill: 2, pages: 10 }]);
    const swapped: Fetch = (input, init) =>
      (/\/v1\/images\/[^/]+$/.test(new URL(new Request(input).url).pathname) ? asked : other).fetch(input, init);
    const { images } = createDecant({
      fetch: swapped,
      baseUrl: 'http://x',
      paths: decantPaths({ DECANT_HOME: directory }),
    });
    const invalid = expect.objectContaining({ code: 'CAS_MANIFEST_INVALID' });
    await expect(images.verify('a')).rejects.toEqual(invalid);
    await expect(images.export({ ref: 'a', file: join(directory, 'out'), sparse: true })).rejects.toEqual(invalid);
    expect(await readdir(directory)).toEqual([]);
  });

  it('is whole when somebody else mended it while it was verified', async () => {
    const { decant, packBytes, checked } = serve(
      [
        { fill: 1, pages: 10 },
        { fill: 2, pages: 10 },
      ],
      () => {
        packBytes[48 + 15 * PAGE_BYTES]! ^= 1;
        return { damaged: [], relocated: false };
      },
    );
    packBytes[48 + 15 * PAGE_BYTES]! ^= 1;
    expect(await decant.images.verify('a')).toMatchObject({
      chunks: 2,
      bytes: 20 * PAGE_BYTES,
      locatorMended: false,
    });
    expect(checked).toEqual([[toHex(hash.blake3(new Uint8Array(10 * PAGE_BYTES).fill(2)))]]);
  });

  it('refuses to replace what is no file, and stops when it is aborted', async () => {
    const { decant } = serve([{ fill: 1, pages: 1 }]);
    await mkdir(join(directory, 'folder'));
    await writeFile(join(directory, 'file'), '');
    const names = ['folder', '/dev/null', 'missing/file', 'file/x'].map((name) => resolve(directory, name));
    for (const file of [...names, '', `${directory}/new/`]) {
      await expect(decant.images.export({ ref: 'a', file, sparse: true })).rejects.toMatchObject({
        code: 'USAGE',
        hint: expect.any(String) as string,
      });
    }
    const reason = new Error('enough');
    await expect(
      decant.images.export(
        { ref: 'a', file: join(directory, 'x'), sparse: true },
        { signal: AbortSignal.abort(reason) },
      ),
    ).rejects.toBe(reason);
    expect((await readdir(directory)).sort()).toEqual(['file', 'folder']);
  });
});
