import { readTar, type TarEntry } from '../../packages/oci/src/index.ts';
import { inPieces, makeTar, sign, type TarSpec } from '../../packages/oci/src/testing/index.ts';
import type { Random } from '../random.ts';
import { Finding, type FuzzTarget } from '../target.ts';

const BLOCK = 512;
const text = (random: Random, most: number) => 'x/é.'.repeat(1 + random.below(most)).slice(0, 1 + random.below(most));

function specOf(random: Random): TarSpec {
  const path = text(random, random.chance(0.2) ? 300 : 20);
  const shared = { path, mode: random.below(0o10000), uid: random.below(2 ** random.below(32)), mtime: random.u32() };
  const data = random.bytes(random.pick([0, 1, 511, 512, 513, random.below(3000)]));
  const pax: [string, string | Uint8Array][] = [];
  if (random.chance(0.2)) pax.push([`SCHILY.xattr.user.${text(random, 8)}`, random.bytes(random.below(40))]);
  if (random.chance(0.1)) pax.push(['mtime', `${random.u32()}.${random.below(1e9)}`]);
  if (random.chance(0.1)) pax.push(['uid', String(random.u32())]);
  if (random.chance(0.05)) pax.push(['size', String(data.length)]);
  const form = random.below(10);
  if (form === 0) return { ...shared, path: `${path}/`, pax };
  if (form === 1) return { ...shared, type: random.pick(['1', '2']), link: text(random, 200), pax };
  if (form === 2)
    return { ...shared, type: random.pick(['3', '4', '6']), dev: [random.below(300), random.below(300)], pax };
  if (form === 3) return { ...shared, type: random.pick(['L', 'K']), data: `${text(random, 200)}\0` };
  if (form === 4) return { ...shared, type: random.pick(['g', 'x']), data: random.bytes(random.below(60)) };
  if (form === 5) return sparse(random, shared);
  return { ...shared, data, pax };
}

/** One of the forms of sparse files: the map in PAX records, or before the data. */
function sparse(random: Random, shared: TarSpec): TarSpec {
  const runs = Array.from({ length: random.below(6) }, (_, i) => [i * 10_000 + random.below(100), random.below(600)]);
  const real = 60_000 + random.below(1000);
  const bytes = runs.reduce((total, [, length]) => total + length!, 0);
  if (random.chance(0.5)) {
    const map = runs.flat().join(',');
    const pax: [string, string][] = [
      ['GNU.sparse.major', '0'],
      ['GNU.sparse.minor', '1'],
      ['GNU.sparse.name', 'real'],
      ['GNU.sparse.size', String(real)],
      ['GNU.sparse.numblocks', String(runs.length)],
      ['GNU.sparse.map', map],
    ];
    return { ...shared, pax, data: random.bytes(bytes) };
  }
  const lines = Buffer.from([runs.length, ...runs.flat()].map((number) => `${number}\n`).join(''));
  const head = Buffer.alloc(Math.ceil(lines.length / BLOCK) * BLOCK);
  lines.copy(head);
  const pax: [string, string][] = [
    ['GNU.sparse.major', '1'],
    ['GNU.sparse.minor', '0'],
    ['GNU.sparse.name', 'real'],
    ['GNU.sparse.realsize', String(real)],
  ];
  return { ...shared, pax, data: Buffer.concat([head, random.bytes(bytes)]) };
}

function generate(random: Random): Uint8Array {
  const specs = Array.from({ length: random.below(12) }, () => specOf(random));
  return Uint8Array.from(makeTar(specs, { endBlocks: random.pick([0, 1, 2, 2, 2, 20]) }));
}

/** Signs every block that looks like a header, so that what is in it counts. */
export function signHeaders(bytes: Uint8Array<ArrayBuffer>): void {
  for (let at = 0; at + BLOCK <= bytes.length; at += BLOCK) {
    const block = Buffer.from(bytes.buffer, bytes.byteOffset + at, BLOCK);
    if (block.toString('latin1', 257, 262) === 'ustar') sign(block);
  }
}

async function read(bytes: Uint8Array, pieceBytes: number): Promise<TarEntry[]> {
  const entries: TarEntry[] = [];
  for await (const entry of readTar(inPieces(bytes, pieceBytes))) entries.push(entry);
  return entries;
}

async function check(bytes: Uint8Array): Promise<void> {
  const entries = await read(bytes, 65_536);
  let end = 0;
  for (const entry of entries) {
    const { headerOffset, dataOffset, storedBytes, sizeBytes, path } = entry;
    if (headerOffset < end || dataOffset < headerOffset + BLOCK)
      throw new Finding(`${path} overlaps what is before it`);
    end = dataOffset + storedBytes;
    if (end > bytes.length) throw new Finding(`${path} ends after the archive`);
    const held = entry.sparse?.reduce((total, run) => total + run.lengthBytes, 0) ?? sizeBytes;
    if (held !== storedBytes) throw new Finding(`${path} has ${held} bytes and ${storedBytes} are stored`);
    const last = entry.sparse?.at(-1);
    if (last !== undefined && last.fileOffset + last.lengthBytes > sizeBytes)
      throw new Finding(`${path} has runs after its end`);
  }
  // Where pieces end must not matter.
  const again = await read(bytes, 509);
  if (JSON.stringify(again) !== JSON.stringify(entries)) throw new Finding('in other pieces it reads otherwise');
}

export const tarTarget: FuzzTarget = {
  name: 'tar',
  refusals: ['LAYER_INVALID', 'LIMIT_EXCEEDED'],
  maxMs: 2000,
  maxMemoryBytes: 64 * 2 ** 20,
  generate,
  repair: signHeaders,
  check,
};

const PAX_KEYS = [
  ...['path', 'linkpath', 'size', 'uid', 'gid', 'mtime', 'atime', 'uname', 'comment', 'SCHILY.xattr.user.a'],
  ...['SCHILY.xattr.security.capability', 'GNU.sparse.size', 'GNU.sparse.name', 'GNU.sparse.map', 'LIBARCHIVE.xattr.a'],
] as const;
const PAX_VALUES = ['', '0', '1', '-1', '3', '0.5', '18446744073709551616', '1e3', '0,1,2,1', '/', '..', 'a\0b', 'é'];

/** Entries with records of any key and value, now and then global ones, so that what changes is mostly in records. */
function generatePax(random: Random): Uint8Array {
  const specs = Array.from({ length: 1 + random.below(4) }, (): TarSpec => {
    const data = random.bytes(random.below(40));
    const pax = Array.from({ length: random.below(8) }, (): [string, string | Uint8Array] => {
      if (random.chance(0.5)) return [`SCHILY.xattr.user.${text(random, 8)}`, random.bytes(random.below(60))];
      return [random.pick(PAX_KEYS), random.chance(0.5) ? random.pick(PAX_VALUES) : String(random.u32())];
    });
    const record = `${13 + random.below(2)} comment=ab\n`;
    if (random.chance(0.1)) return { path: 'g', type: random.pick(['g', 'x']), data: record.repeat(random.below(4)) };
    return { path: text(random, 20), data, pax };
  });
  return Uint8Array.from(makeTar(specs));
}

/** The records of extended headers, which decide names, sizes and attributes. */
export const paxTarget: FuzzTarget = { ...tarTarget, name: 'pax', generate: generatePax };
