import { StreamCursor, type ByteCursor } from './byte-cursor.ts';
import {
  DEFAULT_TAR_LIMITS,
  type ByteString,
  type SparseRun,
  type TarEntry,
  type TarEntryType,
  type TarLimits,
} from './tar-entry.ts';
import { showBytes, tarError, tarLimitError } from './tar-errors.ts';
import { BLOCK_BYTES, isZeroBlock, parseHeader, type RawHeader } from './tar-header.ts';
import { addGlobalRecords, parsePaxRecords, paxFacts, type PaxFacts, type PaxRecords } from './tar-pax.ts';
import { checkSparse, readGnuSparse, readPaxSparseMap } from './tar-sparse.ts';

export interface ReadTarOptions {
  readonly limits?: Partial<TarLimits> | undefined;
  readonly signal?: AbortSignal | undefined;
}

const TYPES: Readonly<Record<string, TarEntryType>> = {
  '\0': 'file',
  '0': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'character-device',
  '4': 'block-device',
  '5': 'directory',
  '6': 'fifo',
  '7': 'file',
  S: 'file',
};

/** From here on a size does not fit into the eleven octal digits of a header. */
const OCTAL_OVERFLOW = 8 ** 11;

/**
 * Reads a tar archive (ustar, GNU, PAX) as its bytes come by. Names and values stay bytes. File data is
 * skipped, not kept: an entry says where in the archive it lies. The source is read to its very end, past the
 * end mark of the archive, so that a source that verifies itself gets to do so.
 *
 * Global PAX headers count for uid, gid and mtime of later entries; one that sets names or
 * sizes is refused, because programs disagree about it. A PAX size that contradicts the header is refused
 * unless it is one that a header cannot hold (8 GiB and more): that disagreement hides entries from some
 * programs and shows them to others.
 *
 * @throws LAYER_INVALID for a broken archive, with the byte offset and, where known, the entry;
 * LIMIT_EXCEEDED for metadata beyond the limits.
 */
export function readTar(
  source: AsyncIterable<Uint8Array>,
  options: ReadTarOptions = {},
): AsyncGenerator<TarEntry, void, undefined> {
  return readTarCursor(new StreamCursor(source, options.signal), options);
}

/** The same on anything that can be read forward and skipped in. */
export async function* readTarCursor(
  cursor: ByteCursor,
  options: ReadTarOptions = {},
): AsyncGenerator<TarEntry, void, undefined> {
  const limits = { ...DEFAULT_TAR_LIMITS, ...options.limits };
  const global = new Map<ByteString, Uint8Array>();
  try {
    for (;;) {
      options.signal?.throwIfAborted();
      const gathered = await gatherMetadata(cursor, limits, global);
      if (gathered.header === undefined) break;
      const { entry, restBytes } = await readEntry(cursor, gathered, global, limits);
      yield entry;
      const skipped = await cursor.skip(restBytes);
      if (skipped < restBytes)
        throw tarError('the archive ends inside the data of an entry', cursor.offset, entry.path);
    }
    await cursor.drain();
  } finally {
    await cursor.close();
  }
}

interface Gathered {
  readonly header: RawHeader | undefined;
  readonly headerBlock: Uint8Array;
  readonly headerOffset: number;
  readonly own: PaxRecords | undefined;
  readonly longName: ByteString | undefined;
  readonly longLink: ByteString | undefined;
}

/** Reads headers up to the next one that is an entry, or to the end of the archive. */
async function gatherMetadata(
  cursor: ByteCursor,
  limits: TarLimits,
  global: Map<ByteString, Uint8Array>,
): Promise<Gathered> {
  let own: PaxRecords | undefined;
  let longName: ByteString | undefined;
  let longLink: ByteString | undefined;
  let metadataBytes = 0;
  const start = cursor.offset;
  for (;;) {
    const headerOffset = cursor.offset;
    let headerBlock = await cursor.take(BLOCK_BYTES);
    const atEnd = headerBlock.length === 0 || (headerBlock.length === BLOCK_BYTES && isZeroBlock(headerBlock));
    if (!atEnd && headerBlock.length < BLOCK_BYTES) throw tarError('the archive ends inside a header', headerOffset);
    if (atEnd) {
      if (metadataBytes > 0) throw tarError('the archive ends after a header that needs an entry', start);
      if (headerBlock.length > 0) await expectEnd(cursor);
      return { header: undefined, headerBlock, headerOffset, own, longName, longLink };
    }
    const header = parseHeader(headerBlock, headerOffset);
    // The one kind of which more is read, after what follows it.
    if (header.type === 'S') headerBlock = new Uint8Array(headerBlock);
    if (!'xXgLK'.includes(header.type)) return { header, headerBlock, headerOffset, own, longName, longLink };
    metadataBytes += BLOCK_BYTES + header.size;
    if (metadataBytes > limits.metadataBytes) {
      throw tarLimitError(`${metadataBytes} bytes of metadata before an entry`, headerOffset, {
        name: 'metadataBytes',
        value: limits.metadataBytes,
      });
    }
    const bodyOffset = cursor.offset;
    const body = await takeBody(cursor, header.size);
    if (header.type === 'L') longName = longText(body, bodyOffset);
    else if (header.type === 'K') longLink = longText(body, bodyOffset);
    else if (header.type === 'g') addGlobalRecords(global, parsePaxRecords(body, bodyOffset, { global: true }));
    else own = parsePaxRecords(body, bodyOffset, { global: false });
    // Only global headers may end an archive.
    if (header.type === 'g') metadataBytes -= BLOCK_BYTES + header.size;
  }
}

/** The block after the first zero block: zeros, or nothing. Whatever follows is not part of the archive. */
async function expectEnd(cursor: ByteCursor): Promise<void> {
  const offset = cursor.offset;
  const block = await cursor.take(BLOCK_BYTES);
  if (!isZeroBlock(block)) throw tarError('a block of zeros stands between entries', offset);
}

async function takeBody(cursor: ByteCursor, lengthBytes: number): Promise<Uint8Array> {
  const offset = cursor.offset;
  const padded = Math.ceil(lengthBytes / BLOCK_BYTES) * BLOCK_BYTES;
  const body = await cursor.take(padded);
  if (body.length < padded) throw tarError('the archive ends inside a header', offset);
  return body.subarray(0, lengthBytes);
}

/** A GNU long name: ends at its first NUL; more than NULs after it would be a second, hidden name. */
function longText(body: Uint8Array, offset: number): ByteString {
  const end = body.indexOf(0);
  const name = end === -1 ? body : body.subarray(0, end);
  if (end !== -1 && !isZeroBlock(body.subarray(end))) throw tarError('a long name has a NUL inside', offset);
  if (name.length === 0) throw tarError('a long name is empty', offset);
  return Buffer.from(name.buffer, name.byteOffset, name.length).toString('latin1');
}

async function readEntry(
  cursor: ByteCursor,
  gathered: Gathered,
  global: ReadonlyMap<ByteString, Uint8Array>,
  limits: TarLimits,
): Promise<{ entry: TarEntry; restBytes: number }> {
  const header = gathered.header!;
  const { headerOffset } = gathered;
  const pax = paxFacts(global, gathered.own, headerOffset);
  const path = gathered.longName ?? pax.sparse?.name ?? pax.path ?? header.name;
  if (path === '') throw tarError('an entry has no name', headerOffset);
  const type = typeOf(header, path, headerOffset);
  const isFile = type === 'file';
  const isLink = type === 'hardlink' || type === 'symlink';
  let storedBytes = isFile ? storedSize(header, pax, headerOffset, path) : 0;
  let sizeBytes = storedBytes;
  const padding = (BLOCK_BYTES - (storedBytes % BLOCK_BYTES)) % BLOCK_BYTES;
  let runs: readonly SparseRun[] | undefined;
  if (isFile && header.type === 'S') {
    if (!header.gnu) throw tarError('a sparse file is not in a GNU archive', headerOffset, path);
    const map = await readGnuSparse(cursor, gathered.headerBlock, headerOffset, path, limits.sparseRuns);
    const file = checkSparse(map.runs, map.realSize, storedBytes, headerOffset, path, limits.sparseRuns);
    sizeBytes = file.realSize;
    runs = file.runs;
  } else if (isFile && pax.sparse !== undefined) {
    let pairs = pax.sparse.runs;
    if (pax.sparse.version === '1.0') {
      const map = await readPaxSparseMap(cursor, storedBytes, path, limits.sparseRuns);
      storedBytes -= map.mapBytes;
      pairs = map.runs;
    }
    const file = checkSparse(pairs, pax.sparse.realSize, storedBytes, headerOffset, path, limits.sparseRuns);
    sizeBytes = file.realSize;
    runs = file.runs;
  }
  const entry: TarEntry = {
    path,
    type,
    mode: header.mode & 0o7777,
    uid: pax.uid ?? header.uid,
    gid: pax.gid ?? header.gid,
    mtimeSeconds: pax.mtime?.seconds ?? header.mtime,
    mtimeNanoseconds: pax.mtime?.nanoseconds ?? 0,
    linkPath: isLink ? (gathered.longLink ?? pax.linkPath ?? header.linkName) : '',
    devMajor: header.devMajor,
    devMinor: header.devMinor,
    sizeBytes,
    xattrs: pax.xattrs,
    headerOffset,
    dataOffset: cursor.offset,
    storedBytes,
    sparse: runs,
  };
  if (isLink && entry.linkPath === '') throw tarError('a link has no target', headerOffset, path);
  return { entry, restBytes: storedBytes + padding };
}

function typeOf(header: RawHeader, path: ByteString, offset: number): TarEntryType {
  // Archives older than ustar have no type for directories: their names end with a slash.
  if (header.type === '\0' && path.endsWith('/')) return 'directory';
  const type = Object.hasOwn(TYPES, header.type) ? TYPES[header.type] : undefined;
  if (type === undefined) throw tarError(`entries of type ${showBytes(header.type)} are not known`, offset, path);
  return type;
}

/** Bytes of data in the archive. Only files have any: other types may carry a size without data, as all readers take it. */
function storedSize(header: RawHeader, pax: PaxFacts, offset: number, path: ByteString): number {
  if (pax.size === undefined || pax.size === header.size) return header.size;
  if (pax.size < OCTAL_OVERFLOW) {
    throw tarError(`the PAX size ${pax.size} contradicts the header's ${header.size}`, offset, path);
  }
  return pax.size;
}
