import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

import { chromium, type Browser, type Page } from 'playwright-core';
import { inject, afterAll, beforeAll, describe, expect, it } from 'vitest';

import {
  chunkImage,
  createManifestBuilder,
  createPackBuilder,
  encodeLocator,
  type HashProvider,
  type LocatorRecord,
  type Manifest,
} from '../packages/cas/src/index.ts';
import { createZstdCodec, loadNodeHashProvider } from '../packages/cas/src/node/index.ts';
import { concatBytes, type ChunkId } from '../packages/core/src/index.ts';
import { bundleForBrowser } from '../scripts/bundle.ts';

const executablePath = inject('tools')['chromium'] ?? null;
const vectors = new URL('../packages/cas/vectors/', import.meta.url);

/** 12 MiB: text that compresses, noise that does not, a hole, and a repeat. */
function testImage(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12 * 2 ** 20);
  let state = 1;
  for (let at = 0; at < 3 * 2 ** 20; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[at] = state >>> 24;
  }
  const line = new TextEncoder().encode('what is read here was written somewhere else, 0123456789\n');
  for (let at = 4 * 2 ** 20; at < 8 * 2 ** 20; at++) bytes[at] = line[at % line.length]! ^ ((at >> 15) & 7);
  bytes.copyWithin(10 * 2 ** 20, 0, 2 ** 20);
  return bytes;
}

/** Manifest, locator and packs of the image, by their path on the server. */
async function publish(
  image: Uint8Array,
  hash: HashProvider,
): Promise<{ manifest: Manifest; files: Map<string, Uint8Array> }> {
  const codec = createZstdCodec();
  const builder = createManifestBuilder(
    { format: 'raw', layout: 'foreign', architecture: null, configDigest: new Uint8Array(32) },
    hash,
  );
  const pack = createPackBuilder({ hash });
  const parts: Uint8Array[] = [];
  const seen = new Set<ChunkId>();
  for await (const stretch of chunkImage([{ type: 'data', bytes: image }], { layout: 'foreign', hash })) {
    builder.add(stretch);
    if (stretch.type === 'hole' || seen.has(stretch.id)) continue;
    seen.add(stretch.id);
    const plain = stretch.bytes.slice();
    parts.push(...pack.add({ id: stretch.id, plainBytes: plain.length, ...codec.encode(plain) }));
  }
  const { bytes, table } = pack.finish();
  const places = new Map([...table.rows()].map(({ id, ...row }) => [id, { pack: 0, ...row }]));
  const encodings = new Set([...places.values()].map(({ encoding }) => encoding));
  expect(encodings).toEqual(new Set(['raw', 'zstd']));
  const manifest = builder.finish();
  const records = Array.from({ length: manifest.entryCount }, (_, i): LocatorRecord | null => {
    const { id } = manifest.entry(i);
    return id === null ? null : places.get(id)!;
  });
  const packBytes = concatBytes([...parts, bytes]);
  const locator = encodeLocator({ imageId: manifest.id, packs: [{ key: 'pack' }], records });
  const damaged = packBytes.slice();
  damaged[table.row(5).offset + 100]! ^= 1;
  return {
    manifest,
    files: new Map<string, Uint8Array>([
      ['/image/manifest', manifest.bytes],
      ['/image/locator', locator],
      ['/image/pack', packBytes],
      ['/damaged/manifest', manifest.bytes],
      ['/damaged/locator', locator],
      ['/damaged/pack', damaged],
      ['/disk.img', image],
    ]),
  };
}

/** Files on 127.0.0.1, with ranges as any web server gives them. */
async function serve(files: ReadonlyMap<string, Uint8Array>) {
  const ranges: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    const bytes = files.get(path);
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    if (bytes === undefined) {
      response.writeHead(404).end();
      return;
    }
    const type = path.endsWith('.js')
      ? 'text/javascript'
      : path.endsWith('.html')
        ? 'text/html'
        : 'application/octet-stream';
    if (range === null) {
      response.writeHead(200, { 'content-type': type }).end(bytes);
      return;
    }
    ranges.push(range[0]);
    const [from, to] = [Number(range[1]), Number(range[2])];
    const headers = { 'content-type': type, 'content-range': `bytes ${from}-${to}/${bytes.length}` };
    response.writeHead(206, headers).end(bytes.subarray(from, to + 1));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    ranges,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

interface Digests {
  readonly provider: string;
  readonly compared: number;
  readonly wrong: readonly string[];
}

describe.skipIf(executablePath === null)('[backend:chromium] the chunking core in a browser', async () => {
  const hash = await loadNodeHashProvider();
  const image = testImage();
  let server: Awaited<ReturnType<typeof serve>>;
  let manifest: Manifest;
  let code: string;
  let imports: readonly string[];
  const browsers: Browser[] = [];

  beforeAll(async () => {
    const entry = new URL('support/browser-page.ts', import.meta.url).pathname;
    ({ code, imports } = await bundleForBrowser(entry));
    const published = await publish(image, hash);
    ({ manifest } = published);
    const { files } = published;
    files.set('/page.js', Buffer.from(code));
    files.set(
      '/page.html',
      Buffer.from('<!doctype html><title>cas</title><script type="module" src="/page.js"></script>'),
    );
    for (const name of ['blake3', 'sha256']) {
      files.set(`/vectors/${name}.json`, await readFile(new URL(`${name}.json`, vectors)));
    }
    server = await serve(files);
  });
  afterAll(async () => {
    for (const browser of browsers) await browser.close();
    await server?.close();
  });

  /** A page of a browser of its own; `flags` go to its JavaScript engine. */
  async function open(flags?: string): Promise<Page> {
    const args = ['--disable-gpu', '--disable-dev-shm-usage', ...(flags === undefined ? [] : [`--js-flags=${flags}`])];
    const browser = await chromium.launch({ executablePath: executablePath!, chromiumSandbox: false, args });
    browsers.push(browser);
    const page = await browser.newPage();
    const errors: string[] = [];
    page.on('pageerror', (error) => errors.push(error.message));
    await page.goto(`${server.origin}/page.html`);
    await page.waitForFunction(() => 'tasks' in globalThis);
    expect(errors).toEqual([]);
    return page;
  }

  const call = (page: Page, name: string, ...args: readonly unknown[]) =>
    page.evaluate(
      ([task, given]) => {
        const { tasks } = globalThis as unknown as { tasks: Record<string, (...args: readonly unknown[]) => unknown> };
        return tasks[task]!(...given);
      },
      [name, args] as const,
    );

  async function everything(page: Page, provider: string): Promise<void> {
    const digests = (await call(page, 'digests')) as Digests;
    expect(digests).toEqual({ provider, compared: 35 * 3 * 2 + (65 + 64) * 2, wrong: [] });
    server.ranges.length = 0;
    expect(await call(page, 'read', '/image')).toEqual({
      id: manifest.id,
      sha256: createHash('sha256').update(image).digest('hex'),
      chunks: manifest.chunkCount,
    });
    // Neighbours come together: far fewer requests than chunks.
    expect(server.ranges.length).toBeGreaterThan(2);
    expect(server.ranges.length).toBeLessThan(manifest.chunkCount / 3);
    expect(await call(page, 'cut', '/disk.img', 'foreign')).toMatchObject({
      id: manifest.id,
      chunks: manifest.chunkCount,
    });
  }

  it('is one bundle in which no module of Node is missing', () => {
    expect(imports).toEqual([]);
    expect(code).not.toContain('node:');
    expect(code).not.toMatch(/\brequire\(/);
  });

  it('gives all digests, reads what was written elsewhere and cuts as everywhere, with the SIMD kernel', async () => {
    const page = await open();
    await everything(page, 'simd');
    expect(await call(page, 'read', '/damaged')).toMatchObject({ sha256: '', error: 'CAS_CHUNK_MISMATCH' });
  }, 120_000);

  it('does the same in a worker', async () => {
    const page = await open();
    expect(await call(page, 'inWorker', 'digests', [])).toMatchObject({ provider: 'simd', wrong: [] });
    expect(await call(page, 'inWorker', 'cut', ['/disk.img', 'foreign'])).toMatchObject({ id: manifest.id });
  }, 120_000);

  it('does the same where WebAssembly has no SIMD', async () => {
    // An engine that is told that the processor is an old one compiles no module with SIMD.
    await everything(await open('--no-enable-sse4-1'), 'hash-wasm');
  }, 120_000);
});
