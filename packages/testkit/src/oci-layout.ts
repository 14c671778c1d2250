import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { findProgram } from '@decant/core/node';

import { makeTar, type TarEntry } from './tar.ts';

export interface OciLayoutOptions {
  /** The layers, lowest first, as archive entries. */
  readonly layers: readonly (readonly TarEntry[])[];
  /** Members of the image configuration's `config` object, such as `Cmd` and `Env`. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly architecture?: 'amd64' | 'arm64';
  /** How layers are stored; default gzip. */
  readonly compression?: 'gzip' | 'none';
  /** Default `latest`. */
  readonly tag?: string;
}

/** Writes an OCI image layout (image-spec 1.1) of one image into a folder; the same options give the same bytes. */
export async function writeOciLayout(folder: string, options: OciLayoutOptions): Promise<{ manifestDigest: string }> {
  const { layers, config = {}, architecture = 'amd64', compression = 'gzip', tag = 'latest' } = options;
  const blobs = join(folder, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const put = async (bytes: Uint8Array, mediaType: string) => {
    const hex = createHash('sha256').update(bytes).digest('hex');
    await writeFile(join(blobs, hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const putJson = (value: unknown, mediaType: string) => put(Buffer.from(JSON.stringify(value)), mediaType);
  const archives = layers.map((entries) => makeTar(entries));
  const descriptors = [];
  for (const archive of archives) {
    descriptors.push(
      compression === 'gzip'
        ? await put(gzipSync(archive), 'application/vnd.oci.image.layer.v1.tar+gzip')
        : await put(archive, 'application/vnd.oci.image.layer.v1.tar'),
    );
  }
  const configDescriptor = await putJson(
    {
      architecture,
      os: 'linux',
      config,
      rootfs: {
        type: 'layers',
        diff_ids: archives.map((archive) => `sha256:${createHash('sha256').update(archive).digest('hex')}`),
      },
    },
    'application/vnd.oci.image.config.v1+json',
  );
  const manifestType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = await putJson(
    { schemaVersion: 2, mediaType: manifestType, config: configDescriptor, layers: descriptors },
    manifestType,
  );
  const annotations = { 'org.opencontainers.image.ref.name': tag };
  const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] };
  await writeFile(join(folder, 'index.json'), JSON.stringify(index));
  await writeFile(join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  return { manifestDigest: manifest.digest };
}

const APPLETS = ['sh', 'cat', 'echo', 'ls', 'mount', 'mkdir', 'sleep', 'touch', 'uname', 'wc'];

/**
 * Entries of a root filesystem that runs: Debian's static busybox with a few applets and the usual folders.
 * @throws Error when busybox is not installed (Debian package busybox-static).
 */
export async function busyboxEntries(): Promise<TarEntry[]> {
  const path = await findProgram('busybox');
  if (path === undefined) throw new Error('busybox is not installed (Debian package busybox-static)');
  return [
    ...['bin/', 'dev/', 'etc/', 'proc/', 'sys/', 'tmp/'].map((folder): TarEntry => ({
      path: folder,
      type: 'directory',
      mode: folder === 'tmp/' ? 0o1777 : 0o755,
    })),
    { path: 'bin/busybox', mode: 0o755, data: await readFile(path) },
    ...APPLETS.map((name): TarEntry => ({ path: `bin/${name}`, type: 'symlink', linkTarget: 'busybox', mode: 0o777 })),
    { path: 'etc/passwd', data: 'root:x:0:0:root:/:/bin/sh\n' },
  ];
}
