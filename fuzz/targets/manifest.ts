import {
  createManifestBuilder,
  loadHashProvider,
  MANIFEST_HEADER_BYTES,
  MANIFEST_PAGE_ENTRIES,
  parseManifest,
  parseManifestHead,
  verifyManifestPage,
  type ManifestFacts,
} from '../../packages/cas/src/index.ts';
import { isDecantError, PAGE_BYTES, toHex, type ChunkId } from '../../packages/core/src/index.ts';
import type { Random } from '../random.ts';
import { Finding, requireEqualBytes, type FuzzTarget } from '../target.ts';

const ENTRY_BYTES = 40;
const INDEX_ROOT = 56;
const hash = await loadHashProvider();

/** Of none to a few thousand entries: most have one page of the manifest, some several. */
function generate(random: Random): Uint8Array {
  const facts: ManifestFacts = {
    format: random.pick(['erofs', 'ext4', 'raw'] as const),
    layout: random.pick(['hinted', 'foreign'] as const),
    architecture: random.pick(['amd64', 'arm64', null] as const),
    configDigest: random.chance(0.5) ? random.bytes(32) : new Uint8Array(32),
  };
  const builder = createManifestBuilder(facts, hash);
  const count = random.chance(0.9) ? random.below(30) : random.between(1000, 3000);
  const known: { id: ChunkId; lengthBytes: number }[] = [];
  for (let i = 0; i < count; i++) {
    if (random.chance(0.2)) {
      const pages = count < 30 && random.chance(0.1) ? random.between(2 ** 26 - 2, 2 ** 27) : random.between(1, 500);
      builder.add({ type: 'hole', lengthBytes: pages * PAGE_BYTES });
      continue;
    }
    const repeated = known.length > 0 && random.chance(0.2) ? random.pick(known) : undefined;
    const lengthBytes = random.pick([1, 2, 16, 64, 256, 1024]) * PAGE_BYTES;
    const chunk = repeated ?? { id: toHex(random.bytes(32)) as ChunkId, lengthBytes };
    known.push(chunk);
    builder.add({ type: 'chunk', ...chunk });
  }
  return builder.finish().bytes;
}

/** Makes the index and the header fit the entries, each with some chance, so that the checks of entries are reached. */
function repair(bytes: Uint8Array<ArrayBuffer>, random: Random): void {
  if (bytes.length < MANIFEST_HEADER_BYTES) return;
  const view = new DataView(bytes.buffer);
  if (random.chance(0.7)) view.setBigUint64(40, BigInt(entriesIn(bytes.length)), true);
  if (random.chance(0.5)) bytes.fill(0, 120, MANIFEST_HEADER_BYTES);
  const entries = Number(view.getBigUint64(40, true));
  const pages = Math.ceil(entries / MANIFEST_PAGE_ENTRIES);
  const index = MANIFEST_HEADER_BYTES + entries * ENTRY_BYTES;
  if (index + pages * ENTRY_BYTES !== bytes.length) return;
  let page = 0;
  let content = 0;
  for (let i = 0; i < entries; i++) {
    const at = MANIFEST_HEADER_BYTES + i * ENTRY_BYTES;
    const row = index + Math.floor(i / MANIFEST_PAGE_ENTRIES) * ENTRY_BYTES;
    if (i % MANIFEST_PAGE_ENTRIES === 0) {
      if (random.chance(0.9)) view.setBigUint64(row, BigInt(page), true);
      const end = Math.min(index, at + MANIFEST_PAGE_ENTRIES * ENTRY_BYTES);
      bytes.set(hash.blake3(bytes.subarray(at, end)), row + 8);
    }
    const length = view.getUint32(at + 32, true);
    page += length;
    if (view.getUint32(at + 36, true) === 0) content += length;
  }
  if (random.chance(0.8)) view.setBigUint64(24, BigInt(page) * BigInt(PAGE_BYTES), true);
  if (random.chance(0.8)) view.setBigUint64(32, BigInt(content) * BigInt(PAGE_BYTES), true);
  bytes.set(hash.blake3(bytes.subarray(index)), INDEX_ROOT);
}

/** Entries of a manifest of so many bytes, if it has a length that a manifest can have. */
function entriesIn(lengthBytes: number): number {
  const rows = Math.floor((lengthBytes - MANIFEST_HEADER_BYTES) / ENTRY_BYTES);
  return rows - Math.ceil(rows / (MANIFEST_PAGE_ENTRIES + 1));
}

function check(bytes: Uint8Array): void {
  const manifest = parseManifest(bytes, hash);
  const builder = createManifestBuilder(manifest, hash);
  let position = 0;
  for (let i = 0; i < manifest.entryCount; i++) {
    const { id, firstPage, pages } = manifest.entry(i);
    if (firstPage !== position) throw new Finding(`entry ${i} begins at page ${firstPage}, not ${position}`);
    for (const page of [firstPage, firstPage + pages - 1]) {
      if (manifest.find(page) !== i)
        throw new Finding(`page ${page} is found in entry ${manifest.find(page)}, not ${i}`);
    }
    position += pages;
    const lengthBytes = pages * PAGE_BYTES;
    builder.add(id === null ? { type: 'hole', lengthBytes } : { type: 'chunk', id, lengthBytes });
  }
  requireEqualBytes('the manifest encoded again', builder.finish().bytes, bytes);
  checkParts(bytes, manifest.pageCount);
}

/** Header and index alone, and each page alone, must be accepted as the whole is. */
function checkParts(bytes: Uint8Array, pageCount: number): void {
  const indexBytes = bytes.subarray(bytes.length - pageCount * ENTRY_BYTES);
  try {
    const head = parseManifestHead(bytes.subarray(0, MANIFEST_HEADER_BYTES), indexBytes, hash);
    for (let index = 0; index < pageCount; index++) {
      const { offset, lengthBytes } = head.pageRange(index);
      verifyManifestPage(head, index, bytes.subarray(offset, offset + lengthBytes), hash);
    }
  } catch (error) {
    if (isDecantError(error)) throw new Finding(`accepted whole, but not in parts: ${error.message}`, { cause: error });
    throw error;
  }
}

export const manifestTarget: FuzzTarget = {
  name: 'manifest',
  refusals: ['CAS_MANIFEST_INVALID'],
  maxMs: 2000,
  maxMemoryBytes: 32 * 2 ** 20,
  generate,
  repair,
  check,
};
