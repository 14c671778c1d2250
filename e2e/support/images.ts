import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { busyboxEntries, writeOciLayout, type TarEntry } from '../../packages/testkit/src/index.ts';

export interface SmallImage {
  /** Members of the image configuration's `config` object. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Entries besides busybox. */
  readonly entries?: readonly TarEntry[];
  /** Bytes that do not compress, different each time, in files of at most 4 MiB. */
  readonly noiseBytes?: number;
}

/** Writes an OCI image layout of busybox and a little more; returns the source to import. */
export async function smallImage(folder: string, name: string, image: SmallImage = {}): Promise<string> {
  const { entries = [], noiseBytes = 0 } = image;
  const noise: TarEntry[] = [];
  for (let left = noiseBytes; left > 0; left -= 4 * 2 ** 20) {
    noise.push({ path: `noise-${noise.length}`, data: randomBytes(Math.min(left, 4 * 2 ** 20)) });
  }
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const path = join(folder, name);
  const config = { Env: ['PATH=/bin'], ...image.config };
  await writeOciLayout(path, { layers: [await busyboxEntries(), [...entries, ...noise]], config, architecture });
  return `oci:${path}`;
}
