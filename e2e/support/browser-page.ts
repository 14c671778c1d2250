/**
 * What the browser runs: the main entry of @decant/cas, on what the page is served beside it. The same module is a page and
 * a worker. Bundled by scripts/bundle.ts.
 */
import {
  chunkImage,
  createDecoderCodec,
  createHttpRanges,
  createImageReader,
  createManifestBuilder,
  createPackSource,
  loadHashProvider,
  parseLocator,
  parseManifest,
  type ChunkLayout,
  type ManifestFacts,
} from '../../packages/cas/src/index.ts';
import { ZSTDDecoder } from 'zstddec';

interface Blake3Vectors {
  readonly key: string;
  readonly context: string;
  readonly cases: readonly { length: number; hash: string; keyed: string; derived: string }[];
}

interface Sha256Vectors {
  readonly short: readonly { readonly message: string; readonly digest: string }[];
  readonly long: readonly { readonly message: string; readonly digest: string }[];
}

/** What is used of a browser's globals; the rest of this repository is checked without them. */
interface BrowserGlobals {
  readonly document?: object;
  readonly location: { readonly href: string };
  readonly Worker: new (url: string, options: { type: 'module' }) => BrowserWorker;
  addEventListener(type: 'message', listener: (event: { readonly data: Call }) => void): void;
  postMessage(message: unknown, transfer: readonly unknown[]): void;
}

interface BrowserWorker {
  addEventListener(type: 'message', listener: (event: { readonly data: unknown }) => void): void;
  addEventListener(type: 'error', listener: (event: { readonly message: string }) => void): void;
  postMessage(message: Call, transfer: readonly unknown[]): void;
  terminate(): void;
}

interface Call {
  readonly name: string;
  readonly args: readonly unknown[];
}

const browser = globalThis as unknown as BrowserGlobals;
const fetchBytes = async (path: string) => new Uint8Array(await (await fetch(path)).arrayBuffer());
const fetchJson = async <T>(path: string) => (await (await fetch(path)).json()) as T;
const hexOf = (bytes: Uint8Array) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');

const tasks = {
  /** Every committed vector of both hashes, whole and in pieces: how many digests were compared, and which differ. */
  async digests(): Promise<{ provider: string; compared: number; wrong: string[] }> {
    const hash = await loadHashProvider();
    const wrong: string[] = [];
    let compared = 0;
    const compare = (what: string, digest: Uint8Array, expected: string) => {
      compared++;
      if (hexOf(digest) !== expected) wrong.push(what);
    };
    const blake3 = await fetchJson<Blake3Vectors>('/vectors/blake3.json');
    const key = new TextEncoder().encode(blake3.key);
    for (const { length, hash: plain, keyed, derived } of blake3.cases) {
      const data = Uint8Array.from({ length }, (_, i) => i % 251);
      for (const [mode, options, expected] of [
        ['hash', {}, plain],
        ['keyed', { key }, keyed],
        ['derived', { context: blake3.context }, derived],
      ] as const) {
        const long = { ...options, outputBytes: 131 };
        compare(`BLAKE3 ${mode} of ${length} bytes`, hash.blake3(data, long), expected);
        const stream = hash.createBlake3(long);
        for (let at = 0; at < length; at += 1000) stream.update(data.subarray(at, at + 1000));
        compare(`BLAKE3 ${mode} of ${length} bytes in pieces`, stream.digest(), expected);
      }
    }
    const sha256 = await fetchJson<Sha256Vectors>('/vectors/sha256.json');
    for (const { message, digest } of [...sha256.short, ...sha256.long]) {
      const data = Uint8Array.from(atob(message), (char) => char.charCodeAt(0));
      compare(`SHA-256 of ${data.length} bytes`, hash.sha256(data), digest);
      const stream = hash.createSha256();
      for (let at = 0; at < data.length; at += 100) stream.update(data.subarray(at, at + 100));
      compare(`SHA-256 of ${data.length} bytes in pieces`, stream.digest(), digest);
    }
    return { provider: hash.name, compared, wrong };
  },

  /** Reads an image that was made elsewhere, by ranges of its packs: its id and the digest of all its bytes. */
  async read(folder: string): Promise<{ id: string; sha256: string; chunks: number; error?: string }> {
    const hash = await loadHashProvider();
    const decoder = new ZSTDDecoder();
    await decoder.init();
    const codec = createDecoderCodec((frame, plainBytes) => decoder.decode(frame, plainBytes));
    const manifest = parseManifest(await fetchBytes(`${folder}/manifest`), hash);
    const locator = parseLocator(await fetchBytes(`${folder}/locator`));
    const readRange = createHttpRanges({
      fetch: (input, init) => fetch(input, init),
      url: (pack) => new URL(`${folder}/${locator.packs[pack]!.key}`, browser.location.href).href,
    });
    const reader = createImageReader(manifest, createPackSource({ manifest, locator, readRange }), { hash, codec });
    const stream = hash.createSha256();
    const step = 1_000_003;
    try {
      for (let at = 0; at < reader.sizeBytes; at += step) {
        stream.update(await reader.read(at, Math.min(step, reader.sizeBytes - at)));
      }
    } catch (error) {
      return { id: manifest.id, sha256: '', chunks: 0, error: String((error as { code?: unknown }).code) };
    }
    return { id: manifest.id, sha256: hexOf(stream.digest()), chunks: manifest.chunkCount };
  },

  /** Cuts an image here: its id, which every chunk and hole goes into, and the time that took. */
  async cut(path: string, layout: ChunkLayout): Promise<{ id: string; chunks: number; milliseconds: number }> {
    const hash = await loadHashProvider();
    const bytes = await fetchBytes(path);
    const started = performance.now();
    const facts: ManifestFacts = { format: 'raw', layout, architecture: null, configDigest: new Uint8Array(32) };
    const builder = createManifestBuilder(facts, hash);
    // In uneven pieces, as they come from a network.
    const pieces = Array.from({ length: Math.ceil(bytes.length / 70_001) }, (_, i) => ({
      type: 'data' as const,
      bytes: bytes.subarray(i * 70_001, (i + 1) * 70_001),
    }));
    for await (const stretch of chunkImage(pieces, { layout, hash })) builder.add(stretch);
    const manifest = builder.finish();
    return { id: manifest.id, chunks: manifest.chunkCount, milliseconds: Math.round(performance.now() - started) };
  },

  /** Runs a task in a worker of its own. */
  inWorker(name: string, args: readonly unknown[]): Promise<unknown> {
    const worker = new browser.Worker(import.meta.url, { type: 'module' });
    return new Promise((resolve, reject) => {
      worker.addEventListener('message', ({ data }) => resolve(data));
      worker.addEventListener('error', (event) => reject(new Error(event.message)));
      worker.postMessage({ name, args }, []);
    }).finally(() => worker.terminate());
  },
};

type Task = (...args: readonly unknown[]) => Promise<unknown>;

Object.assign(globalThis, { tasks });
if (browser.document === undefined) {
  browser.addEventListener('message', ({ data: { name, args } }) => {
    void (tasks as unknown as Record<string, Task>)[name]!(...args).then((result) => browser.postMessage(result, []));
  });
}
