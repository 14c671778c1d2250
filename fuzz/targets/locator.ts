import { encodeLocator, parseLocator, type LocatorRecord } from '../../packages/cas/src/index.ts';
import { PAGE_BYTES, toHex, type ImageId } from '../../packages/core/src/index.ts';
import type { Random } from '../random.ts';
import { requireEqualBytes, type FuzzTarget } from '../target.ts';

function generate(random: Random): Uint8Array {
  const packs = Array.from({ length: random.below(5) }, (_, i) => ({
    key: `ns/${random.pick(['a', 'é', '😀', 'x'.repeat(200)])}/packs/${i}`,
    nonce: random.chance(0.2) ? random.bytes(32) : undefined,
  }));
  const record = (): LocatorRecord | null => {
    if (packs.length === 0 || random.chance(0.2)) return null;
    const plainBytes = random.pick([1, 2, 256, 1024]) * PAGE_BYTES;
    const place = { pack: random.below(packs.length), offset: random.between(48, 2 ** 25), plainBytes };
    if (random.chance(0.5)) return { ...place, storedBytes: plainBytes, encoding: 'raw' };
    return { ...place, storedBytes: random.between(1, plainBytes - 1), encoding: 'zstd' };
  };
  const count = random.chance(0.9) ? random.below(30) : random.below(3000);
  const imageId = `cas-v1:${toHex(random.bytes(32))}` as ImageId;
  return encodeLocator({ imageId, packs, records: Array.from({ length: count }, record) });
}

/** Makes the number of records fit the bytes that follow the packs. */
function repair(bytes: Uint8Array<ArrayBuffer>): void {
  if (bytes.length < 56) return;
  const view = new DataView(bytes.buffer);
  let at = 56;
  for (let packs = Math.min(8, view.getUint32(12, true)); packs > 0 && at + 2 <= bytes.length; packs--) {
    at += 2 + view.getUint16(at, true) + 32;
  }
  if (at <= bytes.length) view.setBigUint64(16, BigInt(Math.floor((bytes.length - at) / 24)), true);
}

function check(bytes: Uint8Array): void {
  const locator = parseLocator(bytes);
  const { imageId, packs } = locator;
  const records = Array.from({ length: locator.recordCount }, (_, i) => locator.record(i));
  requireEqualBytes('the locator encoded again', encodeLocator({ imageId, packs, records }), bytes);
}

export const locatorTarget: FuzzTarget = {
  name: 'locator',
  refusals: ['CAS_LOCATOR_INVALID'],
  maxMs: 2000,
  maxMemoryBytes: 32 * 2 ** 20,
  generate,
  repair,
  check,
};
