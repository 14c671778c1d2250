/**
 * Writes vectors/blake3.json: BLAKE3's published test inputs (bytes 0, 1, … 250, 0, 1, … of these lengths, this key and
 * this context) with 131 bytes of output in each mode. The outputs are computed by @noble/hashes, and by hash-wasm where
 * it has the mode; the script fails when they differ. `pnpm run vectors`.
 */
import { writeFile } from 'node:fs/promises';

import { blake3 } from '@noble/hashes/blake3.js';
import { blake3 as wasmBlake3 } from 'hash-wasm';

const LENGTHS = [
  ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 4097],
  ...[5120, 5121, 6144, 6145, 7168, 7169, 8192, 8193, 16_384, 31_744, 102_400],
];
const OUTPUT_BYTES = 131;
const key = 'whats the Elvish word for friend';
const context = 'BLAKE3 2019-12-27 16:29:52 test vectors context';

const encoder = new TextEncoder();
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

async function agreed(data: Uint8Array, keyBytes?: Uint8Array): Promise<string> {
  const options = keyBytes === undefined ? {} : { key: keyBytes };
  const one = hex(blake3(data, { dkLen: OUTPUT_BYTES, ...options }));
  const other = await wasmBlake3(data, 8 * OUTPUT_BYTES, keyBytes);
  if (one !== other) throw new Error(`the implementations differ for ${data.length} bytes`);
  return one;
}

const cases = [];
for (const length of LENGTHS) {
  const data = Uint8Array.from({ length }, (_, i) => i % 251);
  cases.push({
    length,
    hash: await agreed(data),
    keyed: await agreed(data, encoder.encode(key)),
    derived: hex(blake3(data, { dkLen: OUTPUT_BYTES, context: encoder.encode(context) })),
  });
}
const file = new URL('../vectors/blake3.json', import.meta.url);
await writeFile(file, `${JSON.stringify({ key, context, cases }, null, 2)}\n`);
