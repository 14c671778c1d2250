/**
 * Writes vectors/sha256.json from NIST's SHA-256 files of the Cryptographic Algorithm Validation Program (SHAVS, tests for
 * byte-oriented implementations): SHA256ShortMsg.rsp, SHA256LongMsg.rsp and SHA256Monte.rsp, in the folder given. They are
 * works of the United States government and not under copyright. Debian's package python3-cryptography-vectors has them.
 * `pnpm run sha256-vectors FOLDER`.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error('usage: build-sha256-vectors.ts FOLDER');

/** Every `Len`, `Msg`, `MD` of a file: the message, in base64, and its digest. */
async function messages(name: string): Promise<{ message: string; digest: string }[]> {
  const text = await readFile(join(folder!, name), 'utf8');
  return [...text.matchAll(/^Len = (\d+)\s+Msg = ([0-9a-f]+)\s+MD = ([0-9a-f]{64})/gm)].map(
    ([, bits, hex, digest]) => ({
      // The empty message is written as one byte.
      message: Buffer.from(hex!, 'hex')
        .subarray(0, Number(bits) / 8)
        .toString('base64'),
      digest: digest!,
    }),
  );
}

const monteText = await readFile(join(folder, 'SHA256Monte.rsp'), 'utf8');
const monte = {
  seed: /^Seed = ([0-9a-f]{64})/m.exec(monteText)![1],
  digests: [...monteText.matchAll(/^MD = ([0-9a-f]{64})/gm)].map(([, digest]) => digest),
};
const vectors = {
  source: 'NIST CAVP, SHAVS for byte-oriented implementations: CAVS 11.0 (messages) and 11.1 (Monte Carlo)',
  short: await messages('SHA256ShortMsg.rsp'),
  long: await messages('SHA256LongMsg.rsp'),
  monte,
};
await writeFile(new URL('../vectors/sha256.json', import.meta.url), `${JSON.stringify(vectors, null, 2)}\n`);
