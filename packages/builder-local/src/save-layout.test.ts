import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { packEntries, packMemoryContext, type MemoryFile } from '@decant/context';
import { openOciLayout } from '@decant/oci';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { saveLayout } from './save-layout.ts';

const sha256 = (bytes: string | Uint8Array) => createHash('sha256').update(bytes).digest('hex');

describe('saveLayout', () => {
  let folder: string;
  let target: string;
  let layers: Buffer[];
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'decant-layout-'));
    target = join(folder, 'layout');
    layers = [];
    for (const text of ['one', 'two']) {
      const pieces: Uint8Array[] = [];
      for await (const piece of packMemoryContext([{ path: text, content: text }]).stream) pieces.push(piece);
      layers.push(Buffer.concat(pieces));
    }
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const config = (diffIds: readonly string[]) =>
    JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: diffIds } });
  const idsOf = (bytes: readonly Buffer[]) => bytes.map((layer) => `sha256:${sha256(layer)}`);
  const manifest = (names: readonly string[], count = 1) =>
    JSON.stringify(Array.from({ length: count }, () => ({ Config: 'config.json', RepoTags: null, Layers: names })));
  const image = (change: Readonly<Record<string, string>> = {}): MemoryFile[] => [
    { path: 'a/layer.tar', content: layers[0]! },
    { path: 'b/layer.tar', content: layers[1]! },
    { path: 'config.json', content: change['config.json'] ?? config(idsOf(layers)) },
    { path: 'manifest.json', content: change['manifest.json'] ?? manifest(['a/layer.tar', 'b/layer.tar']) },
    { path: 'repositories', content: '{}' },
  ];
  const save = (files: readonly MemoryFile[]) => saveLayout(packMemoryContext(files).stream, target);

  it('has the layers, the configuration, what leads to them, and nothing else', async () => {
    const { digest, layerBytes } = await save(image());
    await using opened = await openOciLayout(target);
    expect(opened.manifestDigest).toBe(digest);
    expect(opened.layers.map((layer) => layer.digest)).toEqual(idsOf(layers));
    expect(layerBytes).toBe(layers[0]!.length + layers[1]!.length);
    expect(await readdir(join(target, 'blobs/sha256'))).toHaveLength(4);
    expect(await readdir(folder)).toEqual(['layout']);
  });

  it('has a layer once that the image has twice, and one that is a link to another', async () => {
    const twice = image({
      'config.json': config(idsOf([layers[0]!, layers[0]!, layers[0]!])),
      'manifest.json': manifest(['a/layer.tar', 'a/layer.tar', 'c/layer.tar']),
    });
    const contents = new Map(twice.map(({ path, content }) => [path, Buffer.from(content)]));
    const entries = [
      ...twice.map(({ path }) => {
        return { path, type: 'file', sizeBytes: contents.get(path)!.length, mode: 0o644 } as const;
      }),
      { path: 'c/layer.tar', type: 'symlink', sizeBytes: 0, mode: 0o777, linkTarget: '../a/layer.tar' } as const,
    ];
    await saveLayout(packEntries(entries, ({ path }) => [contents.get(path)!]).stream, target);
    expect(await readdir(join(target, 'blobs/sha256'))).toHaveLength(3);
  });

  it.each([
    [
      'a layer that is not the one of the configuration',
      () => image({ 'config.json': config(idsOf(layers.toReversed())) }),
      'OCI_DIGEST_MISMATCH',
    ],
    ['more diff ids than layers', () => image({ 'manifest.json': manifest(['a/layer.tar']) }), 'OCI_INVALID'],
    [
      'more layers than diff ids',
      () => image({ 'config.json': config(idsOf(layers.slice(0, 1))) }),
      'OCI_DIGEST_MISMATCH',
    ],
    ['two images', () => image({ 'manifest.json': manifest(['a/layer.tar', 'b/layer.tar'], 2) }), 'OCI_INVALID'],
    ['no image', () => image({ 'manifest.json': '[]' }), 'OCI_INVALID'],
    ['a layer that is not there', () => image({ 'manifest.json': manifest(['a/layer.tar', 'x']) }), 'OCI_INVALID'],
    ['a manifest that is no JSON', () => image({ 'manifest.json': '[' }), 'OCI_INVALID'],
    ['a document without end', () => image({ 'manifest.json': ' '.repeat(8 * 1024 * 1024 + 1) }), 'OCI_INVALID'],
    [
      'entries without end',
      () => Array.from({ length: 10_001 }, (_, index) => ({ path: `f${index}`, content: '' })),
      'LIMIT_EXCEEDED',
    ],
  ] as const)('refuses %s, and leaves nothing', async (_, files, code) => {
    await expect(save(files())).rejects.toMatchObject({ code });
    expect(await readdir(folder)).toEqual([]);
  });

  it('refuses an archive that is cut anywhere, and leaves nothing', async () => {
    const pieces: Uint8Array[] = [];
    for await (const piece of packMemoryContext(image()).stream) pieces.push(piece);
    const whole = Buffer.concat(pieces);
    for (const bytes of [700, 1536, 4000]) {
      const cut = async function* () {
        yield whole.subarray(0, bytes);
      };
      await expect(saveLayout(cut(), target)).rejects.toMatchObject({
        code: expect.stringMatching(/INVALID/) as string,
      });
      expect(await readdir(folder)).toEqual([]);
    }
  });

  it('touches no directory that holds something', async () => {
    await mkdir(target);
    await writeFile(join(target, 'mine'), 'x');
    await expect(save(image())).rejects.toMatchObject({ code: 'USAGE' });
    expect(await readFile(join(target, 'mine'), 'utf8')).toBe('x');
    expect(await readdir(folder)).toEqual(['layout']);
  });
});
