import { createHash } from 'node:crypto';

import type { BlobSource } from '../../packages/oci/src/blob-source.ts';
import { openFromIndex } from '../../packages/oci/src/open-image.ts';
import { treeFromIndex } from '../../packages/oci/src/image-tree.ts';
import { DEFAULT_OCI_LIMITS, type OciImage } from '../../packages/oci/src/index.ts';
import type { Random } from '../random.ts';
import { Finding, type FuzzTarget } from '../target.ts';

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const bytesOf = (value: unknown) => Buffer.from(JSON.stringify(value));
const LAYERS = [Buffer.alloc(1024), Buffer.alloc(1536)];
const TYPE = 'application/vnd.oci.image.';
const descriptor = (kind: string, bytes: Uint8Array) => ({
  mediaType: `${TYPE}${kind}`,
  digest: digestOf(bytes),
  size: bytes.length,
});

const CONFIG = {
  architecture: 'amd64',
  os: 'linux',
  variant: 'v1',
  config: { Cmd: ['a'], Env: ['A=b'], Labels: { a: 'b' }, ExposedPorts: { '80/tcp': {} }, User: '1', WorkingDir: '/w' },
  rootfs: { type: 'layers', diff_ids: LAYERS.map(digestOf) },
  history: [{ created: '2020-01-01T00:00:00Z', created_by: 'x', empty_layer: true }, {}, {}],
};
const MANIFEST = {
  schemaVersion: 2,
  mediaType: `${TYPE}manifest.v1+json`,
  config: descriptor('config.v1+json', bytesOf(CONFIG)),
  layers: LAYERS.map((layer) => descriptor('layer.v1.tar', layer)),
  annotations: { a: 'b' },
};
const NESTED = {
  schemaVersion: 2,
  mediaType: `${TYPE}index.v1+json`,
  manifests: [descriptor('manifest.v1+json', bytesOf(MANIFEST))],
};
const platform = (architecture: string) => ({ platform: { os: 'linux', architecture } });
const INDEX = {
  schemaVersion: 2,
  mediaType: `${TYPE}index.v1+json`,
  manifests: [
    {
      ...descriptor('manifest.v1+json', bytesOf(MANIFEST)),
      ...platform('amd64'),
      annotations: { 'org.opencontainers.image.ref.name': 'v1' },
    },
    { ...descriptor('index.v1+json', bytesOf(NESTED)), annotations: { 'org.opencontainers.image.ref.name': 'v1' } },
  ],
};
const BLOBS = new Map(
  [...LAYERS, bytesOf(CONFIG), bytesOf(MANIFEST), bytesOf(NESTED)].map((bytes) => [digestOf(bytes), bytes]),
);

const STRANGE: readonly Json[] = [
  ...[null, true, 0, -1, 0.5, 2 ** 53, 1e300, '', '../..', '\u0000', '__proto__', 'x'.repeat(5000)],
  ...[[], {}, [[]], [null], ['a', 1], { '': null }, Array.from({ length: 2000 }, () => 'a')],
];

/** The document with a few of its values changed, taken out, or put somewhere else. */
function changed(value: Json, random: Random, chance: number): Json {
  if (random.chance(chance)) return random.pick(STRANGE);
  if (Array.isArray(value)) {
    const items = value.map((item) => changed(item, random, chance));
    if (items.length > 0 && random.chance(chance)) items.push(random.pick(items));
    return random.chance(chance) ? items.slice(1) : items;
  }
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value).filter(() => !random.chance(chance));
  if (members.length > 1 && random.chance(chance)) members[0] = [members[0]![0], members[1]![1]];
  return Object.fromEntries(members.map(([name, member]) => [name, changed(member, random, chance)]));
}

const generator = (document: unknown) => (random: Random) => {
  const chance = random.pick([0, 0.01, 0.05]);
  const json = JSON.stringify(changed(document as Json, random, chance), undefined, random.pick([0, 0, 2]));
  return Uint8Array.from(Buffer.from(json));
};

/** Most changes of bytes leave no JSON at all: instead of them, a document whose values are changed, where it fits. */
const repairer =
  (generate: (random: Random) => Uint8Array): NonNullable<FuzzTarget['repair']> =>
  (bytes, random) => {
    const fresh = generate(random);
    if (fresh.length > bytes.length || !random.chance(0.8)) return;
    bytes.fill(0x20);
    bytes.set(fresh);
  };

const inputs = (document: unknown) => {
  const generate = generator(document);
  return { generate, repair: repairer(generate) };
};

function sourceWith(bytes: Uint8Array): BlobSource {
  const blobs = new Map([...BLOBS, [digestOf(bytes), Buffer.from(bytes)]]);
  return {
    sizeOf: ({ digest }) => Promise.resolve(blobs.get(digest)?.length),
    async *read({ digest }) {
      yield blobs.get(digest)!;
    },
  };
}

async function open(bytes: Uint8Array, index: Uint8Array): Promise<void> {
  const source = sourceWith(bytes);
  const arguments_ = [source, index, DEFAULT_OCI_LIMITS, {}, () => Promise.resolve()] as const;
  const image = await openFromIndex(...arguments_);
  checkImage(image);
  for (const layer of image.layers) for await (const _ of layer.open()) continue;
  const tree = await treeFromIndex(...arguments_);
  for (const blob of tree.blobs) for await (const _ of blob.read()) continue;
  const named = new Set(tree.inner.map(({ digest }) => digest).concat(tree.top.digest));
  if (!named.has(image.manifestDigest!)) throw new Finding('the tree does not have the image that is chosen from it');
}

/** The configuration that programs use has the types it should have, whatever was in the document. */
function checkImage({ config, layers, history, platform: { os, architecture } }: OciImage): void {
  const run = config.config ?? {};
  const lists = [run.Cmd, run.Entrypoint, run.Env].filter((list) => list !== undefined);
  const texts = [os, architecture, run.User, run.WorkingDir, run.StopSignal, ...lists.flat()];
  if (texts.some((text) => text !== undefined && typeof text !== 'string')) throw new Finding('a text is none');
  if (lists.some((list) => !Array.isArray(list) || list.length === 0)) throw new Finding('a list is none');
  if (!Array.isArray(history) || layers.some(({ digest }) => !/^sha256:[0-9a-f]{64}$/.test(digest))) {
    throw new Finding('a layer has no digest');
  }
}

const single = (entry: object) => bytesOf({ schemaVersion: 2, manifests: [entry] });
const shared = {
  refusals: [
    ...([
      'OCI_INVALID',
      'OCI_DIGEST_MISMATCH',
      'OCI_UNSUPPORTED',
      'OCI_SOURCE_INVALID',
      'OCI_PLATFORM_MISSING',
    ] as const),
    'LIMIT_EXCEEDED',
  ],
  maxMs: 2000,
  maxMemoryBytes: 64 * 2 ** 20,
} as const;

export const ociIndexTarget: FuzzTarget = {
  ...shared,
  name: 'oci-index',
  ...inputs(INDEX),
  check: (bytes) => open(bytes, bytes),
};

export const ociManifestTarget: FuzzTarget = {
  ...shared,
  name: 'oci-manifest',
  ...inputs(MANIFEST),
  check: (bytes) => open(bytes, single(descriptor('manifest.v1+json', bytes))),
};

export const ociConfigTarget: FuzzTarget = {
  ...shared,
  name: 'oci-config',
  ...inputs(CONFIG),
  async check(bytes) {
    const manifest = bytesOf({ ...MANIFEST, config: descriptor('config.v1+json', bytes) });
    BLOBS.set(digestOf(manifest), manifest);
    try {
      await open(bytes, single(descriptor('manifest.v1+json', manifest)));
    } finally {
      BLOBS.delete(digestOf(manifest));
    }
  },
};
