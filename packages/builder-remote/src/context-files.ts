import { gzip, portableSha256, type ContextEntry, type Sha256 } from '@decant/context';
import {
  CONTEXT_FILE_HEADER_BYTES,
  concatBytes,
  contextAnswerSchema,
  DecantError,
  fromHex,
  isDecantError,
  MAX_CONTEXT_ENTRIES,
  MAX_CONTEXT_MANIFEST_BYTES,
  MIB,
  sleep,
  type ContextManifest,
  type ContextManifestEntry,
} from '@decant/core';
import type { HttpClient } from '@decant/transport';

import type { RemoteContext } from './remote-context.ts';
import { sendBody } from './send-body.ts';

/** Plain bytes after which a pack is closed: what a cut upload may have to send again. */
const PACK_BYTES = 8 * MIB;
/** Uploads that may be cut one after the other without any file arriving. */
const FRUITLESS_ATTEMPTS = 4;

/** What of a context had to be sent. */
export interface SentFiles {
  readonly contextId: string;
  readonly files: number;
  readonly sentFiles: number;
  /** Bytes of the files that were sent, before compression. */
  readonly sentBytes: number;
}

export interface SendFilesOptions {
  readonly streaming: boolean;
  readonly onProgress: (bytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Sends what the service lacks of a context's files; undefined when the service does not offer this or the context
 * has too many entries for it. An upload that is cut goes on with the files that have not arrived.
 */
export async function sendContextFiles(
  client: HttpClient,
  context: RemoteContext,
  options: SendFilesOptions,
): Promise<SentFiles | undefined> {
  const { signal } = options;
  if (context.entries.length > MAX_CONTEXT_ENTRIES) return undefined;
  const { manifest, byDigest } = await readManifest(context, signal);
  const bytes = new TextEncoder().encode(JSON.stringify(manifest));
  if (bytes.length > MAX_CONTEXT_MANIFEST_BYTES) return undefined;
  const contextId = await digestOf(bytes, context);
  const body = await gathered(gzip(once(bytes)));
  let sentFiles = 0;
  let sentBytes = 0;
  let fewest = Number.POSITIVE_INFINITY;
  for (let fruitless = 0; ;) {
    const missing = await ask(client, contextId, body, signal);
    if (missing === undefined) return undefined;
    if (missing.length === 0) return { contextId, files: byDigest.size, sentFiles, sentBytes };
    fruitless = missing.length < fewest ? 0 : fruitless + 1;
    fewest = Math.min(fewest, missing.length);
    const entries = missing.map((digest) => wanted(byDigest, digest));
    const totalBytes = entries.reduce((sum, [, { sizeBytes }]) => sum + sizeBytes, 0);
    let done = 0;
    try {
      for (const pack of packsOf(entries)) {
        const packBytes = pack.reduce((sum, [, { sizeBytes }]) => sum + sizeBytes, 0);
        const response = await sendBody(client, `/builds/contexts/${contextId}/files`, {
          headers: { 'content-type': 'application/octet-stream', 'content-encoding': 'gzip' },
          bytes: (context.compress ?? gzip)(
            packStream(pack, context, (at) => options.onProgress(done + at, totalBytes), signal),
          ),
          contentBytes: packBytes,
          streaming: options.streaming,
          signal,
        });
        await response.body?.cancel();
        done += packBytes;
        sentFiles += pack.length;
        sentBytes += packBytes;
      }
    } catch (error) {
      signal?.throwIfAborted();
      if (!isDecantError(error) || !error.retryable || fruitless >= FRUITLESS_ATTEMPTS) throw error;
      await sleep(200 * 2 ** fruitless, signal);
    }
    // A service that keeps asking for what it was sent would go on for ever.
    if (fruitless >= FRUITLESS_ATTEMPTS) {
      throw new DecantError('HTTP_BODY_INVALID', 'The service keeps asking for files that it was sent.', {
        details: { missing: missing.length },
        retryable: false,
      });
    }
  }
}

async function ask(client: HttpClient, contextId: string, body: Uint8Array<ArrayBuffer>, signal?: AbortSignal) {
  try {
    const answer = await client.json(contextAnswerSchema, 'POST', '/builds/contexts', {
      rawBody: body,
      headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' },
      idempotent: true,
      signal,
    });
    if (answer.context_id === contextId) return answer.missing;
    throw new DecantError('HTTP_BODY_INVALID', 'The service gave the context another id than it has.', {
      details: { expected: contextId, given: answer.context_id },
      retryable: false,
    });
  } catch (error) {
    signal?.throwIfAborted();
    const status = isDecantError(error) ? error.details['status'] : undefined;
    // Another service of the same contract: it knows nothing of this path.
    if (status === 404 || status === 405 || status === 501) return undefined;
    throw error;
  }
}

type Wanted = readonly [digest: string, entry: ContextEntry];

function wanted(byDigest: ReadonlyMap<string, ContextEntry>, digest: string): Wanted {
  const entry = byDigest.get(digest);
  if (entry !== undefined) return [digest, entry];
  throw new DecantError('HTTP_BODY_INVALID', 'The service asks for a file that the context does not have.', {
    details: { digest },
    retryable: false,
  });
}

async function readManifest(context: RemoteContext, signal: AbortSignal | undefined) {
  const read = context.reader(signal);
  const byDigest = new Map<string, ContextEntry>();
  const entries: ContextManifestEntry[] = [];
  for (const entry of context.entries) {
    signal?.throwIfAborted();
    if (entry.type !== 'file') {
      entries.push(linkOrDirectory(entry));
      continue;
    }
    const hash = await newHash(context);
    for await (const piece of read(entry)) hash.update(piece);
    const sha256 = hash.digestHex();
    entries.push({ ...commonOf(entry), type: 'file', size_bytes: entry.sizeBytes, sha256 });
    byDigest.set(sha256, entry);
  }
  return { manifest: { version: 1, entries } satisfies ContextManifest, byDigest };
}

function commonOf({ path, pathBytes, mode }: ContextEntry) {
  return { path, ...(pathBytes === undefined ? {} : { path_bytes: base64(pathBytes) }), mode };
}

function linkOrDirectory(entry: ContextEntry): ContextManifestEntry {
  const { type, linkTarget = '', linkTargetBytes } = entry;
  if (type !== 'symlink' && type !== 'hardlink') return { ...commonOf(entry), type: 'directory' };
  return {
    ...commonOf(entry),
    type,
    link_target: linkTarget,
    ...(linkTargetBytes === undefined ? {} : { link_target_bytes: base64(linkTargetBytes) }),
  };
}

const base64 = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes));

function* packsOf(files: readonly Wanted[]): Generator<readonly Wanted[], void> {
  let pack: Wanted[] = [];
  let bytes = 0;
  for (const file of files) {
    pack.push(file);
    bytes += file[1].sizeBytes + CONTEXT_FILE_HEADER_BYTES;
    if (bytes < PACK_BYTES) continue;
    yield pack;
    pack = [];
    bytes = 0;
  }
  if (pack.length > 0) yield pack;
}

async function* packStream(
  files: readonly Wanted[],
  context: RemoteContext,
  onProgress: (bytes: number) => void,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
  const read = context.reader(signal);
  let bytes = 0;
  for (const [digest, entry] of files) {
    signal?.throwIfAborted();
    const header = new Uint8Array(CONTEXT_FILE_HEADER_BYTES);
    header.set(fromHex(digest));
    new DataView(header.buffer).setBigUint64(32, BigInt(entry.sizeBytes));
    yield header;
    for await (const piece of read(entry)) {
      bytes += piece.length;
      onProgress(bytes);
      yield piece as Uint8Array<ArrayBuffer>;
    }
  }
}

async function newHash(context: RemoteContext): Promise<Sha256> {
  return context.sha256?.() ?? (await portableSha256());
}

async function digestOf(bytes: Uint8Array, context: RemoteContext): Promise<string> {
  const hash = await newHash(context);
  hash.update(bytes);
  return hash.digestHex();
}

async function* once(bytes: Uint8Array<ArrayBuffer>): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
  yield bytes;
}

async function gathered(bytes: AsyncIterable<Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = [];
  for await (const piece of bytes) pieces.push(piece);
  return concatBytes(pieces);
}
