import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';

export type LayerForm = 'plain' | 'gzip' | 'zstd';

export interface ImageSpec {
  readonly layers: readonly Uint8Array[];
  readonly form?: LayerForm;
  readonly tag?: string;
  readonly platform?: { readonly os: string; readonly architecture: string; readonly variant?: string };
  readonly config?: Record<string, unknown>;
  /** Last word on the documents before they are written. */
  readonly patchManifest?: (manifest: Record<string, any>) => void;
  readonly patchConfig?: (config: Record<string, any>) => void;
  readonly patchDescriptor?: (descriptor: Record<string, any>) => void;
}

export const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

const SUFFIX: Record<LayerForm, string> = { plain: '', gzip: '+gzip', zstd: '+zstd' };

/** Writes OCI layouts for tests: blobs, manifests and an index. */
export class LayoutMaker {
  readonly directory: string;
  readonly manifests: Record<string, any>[] = [];

  constructor(directory: string) {
    this.directory = directory;
  }

  async blob(bytes: Uint8Array): Promise<string> {
    const digest = digestOf(bytes);
    await mkdir(join(this.directory, 'blobs/sha256'), { recursive: true });
    await writeFile(this.pathOf(digest), bytes);
    return digest;
  }

  pathOf(digest: string): string {
    return join(this.directory, 'blobs/sha256', digest.slice(7));
  }

  async image(spec: ImageSpec): Promise<Record<string, any>> {
    const { form = 'gzip', platform = { os: 'linux', architecture: 'amd64' } } = spec;
    const layers = [];
    for (const layer of spec.layers) {
      const stored = form === 'gzip' ? gzipSync(layer) : form === 'zstd' ? zstdCompressSync(layer) : layer;
      const mediaType = `application/vnd.oci.image.layer.v1.tar${SUFFIX[form]}`;
      layers.push({ mediaType, digest: await this.blob(stored), size: stored.length });
    }
    const config = {
      ...platform,
      config: spec.config ?? {},
      rootfs: { type: 'layers', diff_ids: spec.layers.map(digestOf) },
      history: [{ created_by: 'test' }],
    };
    spec.patchConfig?.(config);
    const configBytes = Buffer.from(JSON.stringify(config));
    const manifest = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        digest: await this.blob(configBytes),
        size: configBytes.length,
      },
      layers,
    };
    spec.patchManifest?.(manifest);
    const bytes = Buffer.from(JSON.stringify(manifest));
    const descriptor: Record<string, any> = {
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      digest: await this.blob(bytes),
      size: bytes.length,
      ...(spec.tag === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': spec.tag } }),
    };
    spec.patchDescriptor?.(descriptor);
    this.manifests.push(descriptor);
    return descriptor;
  }

  /** Writes `oci-layout` and an `index.json` with all images so far, or with what is given. */
  async finish(manifests: readonly unknown[] = this.manifests): Promise<string> {
    await mkdir(this.directory, { recursive: true });
    await writeFile(join(this.directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    await writeFile(join(this.directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
    return this.directory;
  }
}
