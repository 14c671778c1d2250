import { createHash } from 'node:crypto';

import { DecantError, quote, Scope } from '@decant/core';

import { openArchiveFile, type OpenArchiveFileOptions } from './archive-file.ts';
import type { ArchiveIndex, Member } from './archive-index.ts';
import type { BlobSource } from './blob-source.ts';
import { digestHex, sha256 } from './digest.ts';
import { archiveManifestSchema, parseDocument, type ArchiveManifest, type ConfigDocument } from './documents.ts';
import {
  diffIdsOf,
  historyOf,
  parseConfig,
  platformOf,
  runConfig,
  type OciImage,
  type OpenImageOptions,
} from './image.ts';
import { treeFromIndex, type ImageTree } from './image-tree.ts';
import { createLayer, type LayerBlob } from './layer.ts';
import { DEFAULT_OCI_LIMITS, type OciLimits } from './limits.ts';
import { LAYER_TYPES, OCI_CONFIG } from './media-types.ts';
import { checkLayoutFile, openFromIndex } from './open-image.ts';
import { hostPlatform, matchesPlatform, platformMissing } from './platform.ts';
import { tagMatch, tagMissing, tagNeeded } from './tags.ts';

export type OpenArchiveOptions = OpenImageOptions & OpenArchiveFileOptions;

/**
 * Opens an image in a tar file: what `docker save`, buildah, podman and skopeo write as a docker archive, or
 * an OCI layout in a tar. Nothing is extracted: the headers are read once, then data where it lies. An archive that
 * is compressed as a whole is unpacked into the scratch directory first. The file stays open until the image is
 * disposed.
 * @throws OCI_SOURCE_INVALID when the file is no such archive or holds several images and no tag says which,
 * OCI_PLATFORM_MISSING, OCI_INVALID, OCI_DIGEST_MISMATCH, OCI_UNSUPPORTED, LIMIT_EXCEEDED, DISK_FULL.
 */
export function openDockerArchive(path: string, options: OpenArchiveOptions = {}): Promise<OciImage> {
  return inArchive(path, options, async (archive, limits) => {
    const manifest = archive.find('manifest.json');
    if (manifest !== undefined) {
      return openSaved(archive, await archive.readSmall(manifest, limits.documentBytes, options), limits, options);
    }
    const { source, index } = await layoutIn(archive, path, limits, options);
    return openFromIndex(source, index, limits, options, () => Promise.resolve());
  });
}

/**
 * All that a name stands for in a tar file with an OCI layout, to be copied as it is.
 * @throws as {@link openDockerArchive}; OCI_SOURCE_INVALID for a docker archive without a layout
 */
export function openArchiveTree(path: string, options: Omit<OpenArchiveOptions, 'platform'> = {}): Promise<ImageTree> {
  return inArchive(path, options, async (archive, limits) => {
    const { source, index } = await layoutIn(archive, path, limits, options);
    return treeFromIndex(source, index, limits, options, () => Promise.resolve());
  });
}

async function inArchive<T extends AsyncDisposable>(
  path: string,
  options: OpenArchiveOptions,
  action: (archive: ArchiveIndex, limits: OciLimits) => Promise<T>,
): Promise<T> {
  const limits = { ...DEFAULT_OCI_LIMITS, ...options.limits };
  options.signal?.throwIfAborted();
  await using scope = new Scope();
  const archive = scope.use(await openArchiveFile(path, limits, options));
  const opened = await action(archive.index, limits);
  const kept = scope.move();
  return { ...opened, [Symbol.asyncDispose]: () => kept[Symbol.asyncDispose]() };
}

/** The blobs and the index of an OCI layout that the archive holds. */
async function layoutIn(
  archive: ArchiveIndex,
  path: string,
  limits: OciLimits,
  options: OpenImageOptions,
): Promise<{ readonly source: BlobSource; readonly index: Uint8Array }> {
  const layout = archive.find('oci-layout');
  const index = archive.find('index.json');
  if (layout === undefined || index === undefined) {
    const saved = archive.find('manifest.json') !== undefined;
    throw new DecantError(
      'OCI_SOURCE_INVALID',
      saved
        ? `${quote(path)} is a docker archive without an index.`
        : `${quote(path)} is no archive of an image: it has no manifest.json.`,
      { hint: 'Make one with docker save, or with skopeo copy to docker-archive: or oci-archive:.' },
    );
  }
  checkLayoutFile(await archive.readSmall(layout, limits.documentBytes, options));
  const source: BlobSource = {
    sizeOf: ({ digest }) => Promise.resolve(archive.find(`blobs/sha256/${digestHex(digest)}`)?.sizeBytes),
    read: ({ digest }, readOptions) =>
      archive.read(required(archive, `blobs/sha256/${digestHex(digest)}`), readOptions),
  };
  return { source, index: await archive.readSmall(index, limits.documentBytes, options) };
}

interface Saved {
  readonly entry: ArchiveManifest;
  readonly config: ConfigDocument;
  readonly configDigest: string;
  readonly configBytes: Uint8Array;
}

async function openSaved(
  archive: ArchiveIndex,
  manifestBytes: Uint8Array,
  limits: OciLimits,
  options: OpenImageOptions,
): Promise<OciImage> {
  const entries = parseDocument(manifestBytes, archiveManifestSchema, 'The member manifest.json');
  const named = chooseByTag(entries, options.tag);
  const saved: Saved[] = [];
  for (const entry of named) saved.push(await readConfig(archive, entry, limits, options));
  const { entry, config, configDigest, configBytes } = chooseByPlatform(saved, options);
  const names = entry.Layers ?? [];
  const diffIds = diffIdsOf(config, names.length, limits);
  const layers: LayerBlob[] = [];
  for (const [i, name] of names.entries()) layers.push(await openMember(archive, name, diffIds[i]!, limits, options));
  const tags = entry.RepoTags ?? [];
  return {
    reference: tags.find((tag) => options.tag === undefined || tagMatch(tag, options.tag) > 0),
    tags,
    platform: platformOf(config),
    config: runConfig(config),
    history: historyOf(config),
    layers,
    manifestDigest: undefined,
    configDigest,
    documents: { manifest: undefined, config: { mediaType: OCI_CONFIG, bytes: configBytes } },
    totalBytes: layers.reduce((total, layer) => total + layer.sizeBytes, 0),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function chooseByTag(entries: readonly ArchiveManifest[], tag: string | undefined): ArchiveManifest[] {
  if (entries.length === 0) throw new DecantError('OCI_SOURCE_INVALID', 'The archive holds no image.');
  const all = entries.flatMap((entry) => entry.RepoTags ?? []);
  if (tag === undefined) {
    // Several entries of one name are the platforms of one image.
    const sets = new Set(entries.map((entry) => [...(entry.RepoTags ?? [])].sort().join('\n')));
    if (entries.length > 1 && (sets.size > 1 || all.length === 0)) throw tagNeeded(all);
    return [...entries];
  }
  const scores = entries.map((entry) => Math.max(0, ...(entry.RepoTags ?? []).map((name) => tagMatch(name, tag))));
  const best = Math.max(...scores);
  if (best === 0) throw tagMissing(tag, all);
  const matching = entries.filter((_, i) => scores[i] === best);
  const names = new Set(
    matching.flatMap((entry) => (entry.RepoTags ?? []).filter((name) => tagMatch(name, tag) === best)),
  );
  if (best === 1 && names.size > 1 && matching.length > 1) throw tagNeeded([...names]);
  return matching;
}

function chooseByPlatform(saved: readonly Saved[], options: OpenImageOptions): Saved {
  if (options.platform === undefined && saved.length === 1) return saved[0]!;
  const wanted = options.platform ?? hostPlatform();
  const found = saved.find(({ config }) => matchesPlatform(platformOf(config), wanted));
  if (found !== undefined) return found;
  throw platformMissing(
    wanted,
    saved.map(({ config }) => platformOf(config)),
  );
}

async function readConfig(
  archive: ArchiveIndex,
  entry: ArchiveManifest,
  limits: OciLimits,
  options: OpenImageOptions,
): Promise<Saved> {
  const member = required(archive, entry.Config);
  const bytes = await archive.readSmall(member, limits.documentBytes, options);
  const configDigest = sha256(bytes);
  const declared = digestInName(entry.Config);
  if (declared !== undefined && declared !== configDigest) throw wrongName(entry.Config, configDigest);
  return {
    entry,
    config: parseConfig(bytes, `The configuration ${quote(entry.Config)}`),
    configDigest,
    configBytes: bytes,
  };
}

async function openMember(
  archive: ArchiveIndex,
  name: string,
  diffId: string,
  limits: OciLimits,
  options: OpenImageOptions,
): Promise<LayerBlob> {
  const member = required(archive, name);
  const compression = await archive.compression(member);
  // The stored bytes of a compressed layer have no declared digest but the one in a blob's name.
  const digest = compression === 'none' ? diffId : (blobDigest(name) ?? (await hashMember(archive, member, options)));
  return createLayer(
    {
      digest,
      diffId,
      mediaType: LAYER_TYPES[compression],
      compression,
      sizeBytes: member.sizeBytes,
      read: (readOptions) => archive.read(member, readOptions),
    },
    limits,
  );
}

async function hashMember(archive: ArchiveIndex, member: Member, options: OpenImageOptions): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of archive.read(member, options)) hash.update(piece);
  return `sha256:${hash.digest('hex')}`;
}

function required(archive: ArchiveIndex, name: string): Member {
  const member = archive.find(name);
  if (member !== undefined) return member;
  throw new DecantError('OCI_INVALID', `The archive has no member ${quote(name)}, which the image needs.`, {
    details: { member: name },
    hint: 'The archive is incomplete; save the image again.',
  });
}

function blobDigest(name: string): string | undefined {
  const match = /^(?:\.\/)?blobs\/sha256\/([0-9a-f]{64})$/.exec(name);
  return match === null ? undefined : `sha256:${match[1]}`;
}

/** `DIGITS.json` and `blobs/sha256/DIGITS` are named by the digest of their bytes. */
function digestInName(name: string): string | undefined {
  const match = /^([0-9a-f]{64})\.json$/.exec(name);
  return match === null ? blobDigest(name) : `sha256:${match[1]}`;
}

function wrongName(name: string, found: string): DecantError {
  return new DecantError('OCI_DIGEST_MISMATCH', `The configuration ${quote(name)} hashes to ${found}.`, {
    details: { member: name, found },
    hint: 'The archive is damaged or was changed; save the image again.',
  });
}
