import { createHash, randomUUID, type Hash } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, posix, resolve } from 'node:path';

import { DecantError, errnoOf, quote, Scope } from '@decant/core';
import { readTar, showBytes, type TarEntry } from '@decant/oci';

import type { CallOptions, ExportedLayout } from './driver.ts';

const OCI = 'application/vnd.oci.image';
const LARGEST_DOCUMENT = 8 * 1024 * 1024;
/** Layers with their links and legacy files, which an engine writes for each of at most a few hundred. */
const MOST_ENTRIES = 10_000;

/** A file of the archive, written under a temporary name while it came by. */
interface Received {
  readonly file: string;
  readonly sizeBytes: number;
  readonly hex: string;
  readonly start: Buffer;
}

/**
 * Turns a stream of the `docker save` form into an OCI layout: each layer goes once, straight from the stream, into the
 * file that stays. The directory is missing or empty, and complete or not there afterwards.
 * @throws USAGE when it holds something, OCI_INVALID for an archive that is not one of one image, LAYER_INVALID.
 */
export async function saveLayout(
  archive: AsyncIterable<Uint8Array>,
  directory: string,
  { signal }: CallOptions = {},
): Promise<ExportedLayout> {
  const target = resolve(directory);
  await expectEmpty(target, directory);
  await using scope = new Scope();
  const temporary = join(dirname(target), `.${basename(target)}-${randomUUID()}`);
  const blobs = join(temporary, 'blobs', 'sha256');
  await mkdir(blobs, { recursive: true });
  scope.defer(() => rm(temporary, { recursive: true, force: true }));
  const { files, links } = await receive(archive, blobs, signal);
  const result = await writeDocuments({ files, links, temporary, blobs });
  try {
    await rename(temporary, target);
  } catch (error) {
    if (errnoOf(error) === 'ENOTEMPTY' || errnoOf(error) === 'EEXIST') throw notEmpty(directory);
    throw error;
  }
  return result;
}

/** Writes every file of the archive under a temporary name. */
async function receive(archive: AsyncIterable<Uint8Array>, blobs: string, signal: AbortSignal | undefined) {
  const files = new Map<string, Received>();
  const links = new Map<string, string>();
  const router = new Router();
  let sink: Sink | undefined;
  const finish = async () => {
    const finished = sink;
    sink = undefined;
    if (finished !== undefined) files.set(finished.name, await finished.close());
  };
  try {
    let entries = 0;
    for await (const entry of readTar(router.pass(archive), { signal })) {
      await router.turnTo(entry);
      await finish();
      if (++entries > MOST_ENTRIES) {
        throw new DecantError('LIMIT_EXCEEDED', `The archive has more than ${MOST_ENTRIES} entries.`);
      }
      const name = posix.normalize(entry.path);
      if (entry.type === 'symlink') links.set(name, posix.normalize(posix.join(posix.dirname(name), entry.linkPath)));
      else if (entry.type === 'hardlink') links.set(name, posix.normalize(entry.linkPath));
      if (entry.type !== 'file' || entry.sparse !== undefined) continue;
      sink = await Sink.open(name, join(blobs, `.${randomUUID()}`), entry.sizeBytes);
      router.sink = sink;
    }
    await router.turnTo(undefined);
    await finish();
  } finally {
    await sink?.close();
  }
  return { files, links };
}

/**
 * Stands between a stream and the reader of its headers and gives the data of the entry at hand to its sink. The
 * reader has asked for no more than one piece beyond what it understood, so no more than that is held.
 */
class Router {
  sink: Sink | undefined;
  #entry: TarEntry | undefined;
  #held: { readonly offset: number; readonly bytes: Uint8Array }[] = [];

  async *pass(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let offset = 0;
    for await (const bytes of source) {
      await this.#flush();
      this.#held.push({ offset, bytes });
      offset += bytes.length;
      yield bytes;
    }
  }

  /** Ends the entry at hand and begins the next. */
  async turnTo(entry: TarEntry | undefined): Promise<void> {
    await this.#flush();
    const from = entry?.headerOffset ?? Number.POSITIVE_INFINITY;
    this.#held = this.#held.filter(({ offset, bytes }) => offset + bytes.length > from);
    this.#entry = entry;
    this.sink = undefined;
  }

  async #flush(): Promise<void> {
    const { sink } = this;
    if (this.#entry === undefined || sink === undefined) return;
    const start = this.#entry.dataOffset;
    for (const { offset, bytes } of this.#held) {
      const from = Math.max(start + sink.sizeBytes, offset);
      const to = Math.min(start + this.#entry.storedBytes, offset + bytes.length);
      if (to > from) await sink.write(bytes.subarray(from - offset, to - offset));
    }
    const done = start + sink.sizeBytes;
    this.#held = this.#held.filter(({ offset, bytes }) => offset + bytes.length > done);
  }
}

/** A file that is hashed while it is written. */
class Sink {
  readonly name: string;
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #expected: number;
  readonly #hash: Hash = createHash('sha256');
  #start = Buffer.alloc(0);
  sizeBytes = 0;

  constructor(name: string, path: string, file: FileHandle, expected: number) {
    this.name = name;
    this.#path = path;
    this.#file = file;
    this.#expected = expected;
  }

  static async open(name: string, path: string, expected: number): Promise<Sink> {
    return new Sink(name, path, await open(path, 'wx'), expected);
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#start.length < 4) this.#start = Buffer.concat([this.#start, bytes.subarray(0, 4)]);
    this.#hash.update(bytes);
    for (let done = 0; done < bytes.length;) done += (await this.#file.write(bytes, done)).bytesWritten;
    this.sizeBytes += bytes.length;
  }

  async close(): Promise<Received> {
    await this.#file.close();
    if (this.sizeBytes !== this.#expected) {
      throw invalid(`the entry ${quote(showBytes(this.name))} is cut short`);
    }
    return { file: this.#path, sizeBytes: this.sizeBytes, hex: this.#hash.digest('hex'), start: this.#start };
  }
}

interface Parts {
  readonly files: ReadonlyMap<string, Received>;
  readonly links: ReadonlyMap<string, string>;
  readonly temporary: string;
  readonly blobs: string;
}

/** Names the layers and the configuration by digest, writes what leads to them and removes the rest. */
async function writeDocuments({ files, links, temporary, blobs }: Parts): Promise<ExportedLayout> {
  const find = (name: string): Received => {
    let path = posix.normalize(name);
    // A link leads to a file; engines make no chains of them.
    path = files.has(path) ? path : (links.get(path) ?? path);
    const found = files.get(path);
    if (found === undefined) throw invalid(`it names ${quote(name)}, which it does not hold`);
    return found;
  };
  const [image, ...others] = (await json(find('manifest.json'))) as { Config: string; Layers: string[] | null }[];
  if (typeof image?.Config !== 'string' || others.length > 0) throw invalid('it does not hold exactly one image');
  const config = find(image.Config);
  const { architecture, os, rootfs } = (await json(config)) as {
    architecture?: string;
    os?: string;
    rootfs?: { diff_ids?: string[] };
  };
  const layers = (image.Layers ?? []).map((name) => ({ ...find(name), ...compressionOf(find(name).start) }));
  const diffIds = rootfs?.diff_ids ?? [];
  for (const [i, { hex, packed }] of layers.entries()) {
    if (diffIds[i] === undefined || (!packed && diffIds[i] !== `sha256:${hex}`)) {
      throw new DecantError('OCI_DIGEST_MISMATCH', `Layer ${i + 1} of the image is not the one of its configuration.`);
    }
  }
  if (diffIds.length !== layers.length) throw invalid(`it has ${layers.length} layers and ${diffIds.length} diff ids`);
  const kept = new Set<string>();
  for (const { file, hex } of [config, ...layers]) {
    if (!kept.has(hex)) await rename(file, join(blobs, hex));
    kept.add(hex);
  }
  for (const name of await readdir(blobs)) if (!kept.has(name)) await rm(join(blobs, name));
  const descriptor = ({ hex, sizeBytes: size }: Received, mediaType: string) => ({
    mediaType,
    digest: `sha256:${hex}`,
    size,
  });
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: `${OCI}.manifest.v1+json`,
    config: descriptor(config, `${OCI}.config.v1+json`),
    layers: layers.map((layer) => descriptor(layer, `${OCI}.layer.v1.tar${layer.suffix}`)),
  });
  const hex = createHash('sha256').update(manifest).digest('hex');
  await writeFile(join(blobs, hex), manifest);
  const named = {
    mediaType: `${OCI}.manifest.v1+json`,
    digest: `sha256:${hex}`,
    size: Buffer.byteLength(manifest),
    platform: { architecture, os },
  };
  const index = { schemaVersion: 2, mediaType: `${OCI}.index.v1+json`, manifests: [named] };
  await writeFile(join(temporary, 'index.json'), `${JSON.stringify(index)}\n`);
  await writeFile(join(temporary, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}\n');
  return { digest: named.digest, layerBytes: layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) };
}

/** A newer docker may hand out layers as they were pulled. */
function compressionOf(start: Buffer): { readonly packed: boolean; readonly suffix: string } {
  if (start.subarray(0, 2).equals(Buffer.from([0x1f, 0x8b]))) return { packed: true, suffix: '+gzip' };
  if (start.equals(Buffer.from([0x28, 0xb5, 0x2f, 0xfd]))) return { packed: true, suffix: '+zstd' };
  return { packed: false, suffix: '' };
}

async function json({ file, sizeBytes }: Received): Promise<unknown> {
  if (sizeBytes > LARGEST_DOCUMENT) throw invalid(`a document in it has ${sizeBytes} bytes`);
  try {
    return JSON.parse(await readFile(file, 'utf8')) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) throw invalid('a document in it is no JSON');
    throw error;
  }
}

function invalid(why: string): DecantError {
  return new DecantError('OCI_INVALID', `The archive of the image cannot be used: ${why}.`);
}

async function expectEmpty(target: string, shown: string): Promise<void> {
  const names = await readdir(target).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw new DecantError('USAGE', `${quote(shown)} is not a directory.`, { cause: error });
  });
  if (names.length > 0) throw notEmpty(shown);
}

function notEmpty(shown: string): DecantError {
  return new DecantError('USAGE', `The directory ${quote(shown)} is not empty.`, { hint: 'Name a new directory.' });
}
