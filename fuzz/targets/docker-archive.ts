import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { openDockerArchive } from '../../packages/oci/src/index.ts';
import { makeTar, type TarSpec } from '../../packages/oci/src/testing/index.ts';
import type { Random } from '../random.ts';
import { Finding, type FuzzTarget } from '../target.ts';
import { signHeaders } from './tar.ts';

const hex = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** What `docker save` writes in one of its forms, with links between members and other things beside. */
function generate(random: Random): Uint8Array {
  const plain = Array.from({ length: random.below(4) }, (_, i) => makeTar([{ path: `f${i}`, data: random.bytes(30) }]));
  const rootfs = { type: 'layers', diff_ids: plain.map((layer) => `sha256:${hex(layer)}`) };
  const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs }));
  const modern = random.chance(0.5);
  const members: TarSpec[] = [];
  const names = plain.map((layer, i) => {
    const stored = random.chance(0.3) ? gzipSync(layer) : layer;
    const name = modern ? `blobs/sha256/${hex(stored)}` : `${i}/layer.tar`;
    members.push({ path: name, data: stored });
    if (modern || !random.chance(0.3)) return name;
    members.push({ path: `link${i}`, type: random.pick(['1', '2']), link: name });
    return `link${i}`;
  });
  const Config = modern ? `blobs/sha256/${hex(config)}` : `${hex(config)}.json`;
  members.push({ path: Config, data: config });
  const entry = { Config, RepoTags: ['app:v1'], Layers: names };
  members.push({ path: 'manifest.json', data: JSON.stringify([entry]) }, { path: 'repositories', data: '{}' });
  return Uint8Array.from(makeTar(members));
}

let directory: string | undefined;

/** One file for all cases: the parser reads from disk. */
function fileOf(bytes: Uint8Array): string {
  if (directory === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'fuzz-archive-'));
    process.once('exit', () => rmSync(made, { recursive: true, force: true }));
    directory = made;
  }
  const file = join(directory, 'image.tar');
  writeFileSync(file, bytes);
  return file;
}

async function check(bytes: Uint8Array): Promise<void> {
  await using image = await openDockerArchive(fileOf(bytes));
  for (const layer of image.layers) {
    const hash = createHash('sha256');
    for await (const piece of layer.open()) hash.update(piece);
    if (`sha256:${hash.digest('hex')}` !== layer.diffId) throw new Finding('a layer is not what its diff id says');
  }
}

export const dockerArchiveTarget: FuzzTarget = {
  name: 'docker-archive',
  refusals: [
    ...([
      'OCI_SOURCE_INVALID',
      'OCI_INVALID',
      'OCI_DIGEST_MISMATCH',
      'OCI_UNSUPPORTED',
      'OCI_PLATFORM_MISSING',
    ] as const),
    ...(['LAYER_INVALID', 'LIMIT_EXCEEDED'] as const),
  ],
  maxMs: 3000,
  maxMemoryBytes: 64 * 2 ** 20,
  generate,
  repair: signHeaders,
  check,
};
