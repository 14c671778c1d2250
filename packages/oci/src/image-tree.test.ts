import { beforeEach, describe, expect, it } from 'vitest';

import type { BlobSource } from './blob-source.ts';
import { treeFromIndex } from './image-tree.ts';
import { DEFAULT_OCI_LIMITS, type OciLimits } from './limits.ts';
import { openFromIndex } from './open-image.ts';
import { digestOf } from './testing/make-layout.ts';
import { failure, gather } from './testing/streams.ts';

const INDEX = 'application/vnd.oci.image.index.v1+json';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const LAYER = Buffer.alloc(1024);

interface Named {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: object;
}

let blobs: Map<string, Buffer>;
beforeEach(() => {
  blobs = new Map();
});

const source: BlobSource = {
  sizeOf: ({ digest }) => Promise.resolve(blobs.get(digest)?.length),
  async *read({ digest }) {
    yield blobs.get(digest)!;
  },
};

function blob(mediaType: string, content: Buffer | object): Named {
  const bytes = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
  blobs.set(digestOf(bytes), bytes);
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

/** An image of empty layers; `comment` makes it one of its own. */
function image(comment: string, more: object = {}, layers: readonly Named[] = [layer()]): Named {
  const rootfs = { type: 'layers', diff_ids: layers.map(() => digestOf(LAYER)) };
  const config = blob('application/vnd.oci.image.config.v1+json', {
    os: 'linux',
    architecture: 'amd64',
    rootfs,
    comment,
  });
  return blob(MANIFEST, { schemaVersion: 2, config, layers, ...more });
}

const layer = () => blob('application/vnd.oci.image.layer.v1.tar', LAYER);
const index = (manifests: readonly Named[], more: object = {}) => blob(INDEX, { schemaVersion: 2, manifests, ...more });
const top = (manifests: readonly Named[]) => Buffer.from(JSON.stringify({ schemaVersion: 2, manifests }));

const open = (manifests: readonly Named[], limits: Partial<OciLimits> = {}) =>
  openFromIndex(source, top(manifests), { ...DEFAULT_OCI_LIMITS, ...limits }, {}, () => Promise.resolve());
const copy = (manifests: readonly Named[], limits: Partial<OciLimits> = {}) =>
  treeFromIndex(source, top(manifests), { ...DEFAULT_OCI_LIMITS, ...limits }, {}, () => Promise.resolve());

describe.each([
  ['an image that is opened', open],
  ['all that a name stands for', copy],
] as const)('%s', (_, action) => {
  it('is found below four indexes, and not below more', async () => {
    let entry = image('deep');
    for (let depth = 0; depth < 4; depth++) entry = index([entry]);
    expect(await failure(action([entry]))).toBeUndefined();
    expect(await failure(action([index([entry])]))).toBe('LIMIT_EXCEEDED');
  });

  it('is not looked for in more than 512 documents', async () => {
    const many = (count: number) => Array.from({ length: count }, (__, i) => image(`${i}`));
    expect(await failure(action(many(510)))).toBeUndefined();
    expect(await failure(action(many(513)))).toBe('LIMIT_EXCEEDED');
    const indexes = Array.from({ length: 513 }, (__, i) => index([], { annotations: { a: `${i}` } }));
    expect(await failure(action([image('one'), ...indexes]))).toBe('LIMIT_EXCEEDED');
  });

  it('has so many layers at most, and documents that are what they are called', async () => {
    const layers = [layer(), layer()];
    expect(await failure(action([image('two', {}, layers)], { layers: 2 }))).toBeUndefined();
    expect(await failure(action([image('two', {}, layers)], { layers: 1 }))).toBe('LIMIT_EXCEEDED');
    expect(await failure(action([image('x', { mediaType: INDEX })]))).toBe('OCI_INVALID');
    expect(await failure(action([index([image('x')], { mediaType: MANIFEST })]))).toBe('OCI_INVALID');
    const larger = { ...layer(), size: LAYER.length + 1 };
    expect(await failure(action([image('x', {}, [layer(), larger])]))).toBe('OCI_DIGEST_MISMATCH');
  });
});

it('is copied as it is: each document and blob once, and damage is noticed', async () => {
  const one = image('one');
  const outer = index([one, index([one, image('two')])]);
  const tree = await copy([outer]);
  expect(tree.top.digest).toBe(outer.digest);
  expect(tree.inner).toHaveLength(3);
  expect(tree.blobs).toHaveLength(3);
  blobs.set(digestOf(LAYER), Buffer.alloc(LAYER.length, 1));
  const damaged = tree.blobs.find(({ digest }) => digest === digestOf(LAYER))!;
  expect(await failure(gather(damaged.read()))).toBe('OCI_DIGEST_MISMATCH');
});

it('is the one without a variant, where one is asked for without', async () => {
  const platform = { os: 'linux', architecture: 'arm' };
  const entries = [
    { ...image('v7'), platform: { ...platform, variant: 'v7' } },
    { ...image('any'), platform },
  ];
  const opened = await openFromIndex(source, top(entries), DEFAULT_OCI_LIMITS, { platform }, () => Promise.resolve());
  expect(opened.manifestDigest).toBe(entries[1]!.digest);
});
