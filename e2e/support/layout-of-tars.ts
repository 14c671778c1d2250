import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { constants, createGzip } from 'node:zlib';

/** Writes an OCI image layout whose layers are these archives, lowest first, gzipped in a hurry. */
export async function layoutOfTars(folder: string, tars: readonly string[], config: object = {}): Promise<void> {
  const blobs = join(folder, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const put = async (value: unknown, mediaType: string) => {
    const bytes = Buffer.from(JSON.stringify(value));
    const hex = createHash('sha256').update(bytes).digest('hex');
    await writeFile(join(blobs, hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const layers = [];
  const diffIds = [];
  for (const tar of tars) {
    const plain = createHash('sha256');
    const stored = createHash('sha256');
    const partial = join(blobs, 'partial');
    await pipeline(
      createReadStream(tar),
      async function* (pieces: AsyncIterable<Buffer>) {
        for await (const piece of pieces) {
          plain.update(piece);
          yield piece;
        }
      },
      createGzip({ level: constants.Z_BEST_SPEED }),
      async function* (pieces: AsyncIterable<Buffer>) {
        for await (const piece of pieces) {
          stored.update(piece);
          yield piece;
        }
      },
      createWriteStream(partial),
    );
    const hex = stored.digest('hex');
    await rename(partial, join(blobs, hex));
    const { size } = await stat(join(blobs, hex));
    layers.push({ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: `sha256:${hex}`, size });
    diffIds.push(`sha256:${plain.digest('hex')}`);
  }
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const configDescriptor = await put(
    { architecture, os: 'linux', config, rootfs: { type: 'layers', diff_ids: diffIds } },
    'application/vnd.oci.image.config.v1+json',
  );
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = await put({ schemaVersion: 2, mediaType, config: configDescriptor, layers }, mediaType);
  const annotations = { 'org.opencontainers.image.ref.name': 'latest' };
  await writeFile(
    join(folder, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  await writeFile(join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
}
