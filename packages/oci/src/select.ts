import { DecantError, quote } from '@decant/core';

import { readChecked, type BlobSource } from './blob-source.ts';
import { indexSchema, manifestSchema, parseDocument, type Descriptor, type Index, type Manifest } from './documents.ts';
import { parseConfig, platformOf, type OpenImageOptions } from './image.ts';
import type { OciLimits } from './limits.ts';
import { isConfigType, isIndexType, isManifestType, notAnImageHint } from './media-types.ts';
import { hostPlatform, matchesPlatform, platformMissing, type Platform } from './platform.ts';
import { tagMatch, tagMissing, tagNeeded } from './tags.ts';

export const MAX_DEPTH = 4;
export const MAX_DOCUMENTS = 512;
const REF_NAME = 'org.opencontainers.image.ref.name';
/** The whole name, where containerd and BuildKit put only the tag into the ref name. */
const FULL_NAME = 'io.containerd.image.name';

export interface Chosen {
  readonly descriptor: Descriptor;
  readonly tags: readonly string[];
  readonly reference: string | undefined;
}

/** The manifest that an index and the caller's wishes lead to. */
export async function chooseManifest(
  source: BlobSource,
  index: Index,
  limits: OciLimits,
  options: OpenImageOptions,
): Promise<Chosen> {
  const { entries, tags, reference } = chooseEntries(index, options.tag);
  const candidates: Candidate[] = [];
  const budget = { documents: MAX_DOCUMENTS };
  for (const descriptor of entries) await collect(source, descriptor, limits, options, candidates, budget, 0);
  const descriptor = chooseByPlatform(candidates, options.platform);
  return { descriptor, tags, reference };
}

/** The entries of an index that a name stands for, and their names. */
export function chooseEntries(
  index: Index,
  tag: string | undefined,
): Omit<Chosen, 'descriptor'> & { readonly entries: readonly Descriptor[] } {
  const entries = chooseByTag(index.manifests, tag);
  const tags = namesOf(index.manifests.filter((each) => entries.some((chosen) => chosen.digest === each.digest)));
  const reference = tag === undefined ? tags[0] : (tags.find((name) => tagMatch(name, tag) > 0) ?? tag);
  return { entries, tags, reference };
}

/** The names of one entry, the full one first. */
function names(descriptor: Descriptor): string[] {
  const both = [descriptor.annotations?.[FULL_NAME], descriptor.annotations?.[REF_NAME]];
  return both.filter((name) => name !== undefined && name !== '') as string[];
}

function namesOf(descriptors: readonly Descriptor[]): string[] {
  return [...new Set(descriptors.flatMap((each) => names(each).slice(0, 1)))];
}

function chooseByTag(manifests: readonly Descriptor[], tag: string | undefined): Descriptor[] {
  if (manifests.length === 0) throw new DecantError('OCI_SOURCE_INVALID', 'The source holds no image.');
  if (tag !== undefined) {
    const scored = manifests.map((each) => ({
      each,
      score: Math.max(0, ...names(each).map((name) => tagMatch(name, tag))),
    }));
    const best = Math.max(...scored.map(({ score }) => score));
    if (best === 0) throw tagMissing(tag, namesOf(manifests));
    const matching = scored.filter(({ score }) => score === best).map(({ each }) => each);
    const distinct = namesOf(matching);
    if (best === 1 && distinct.length > 1 && new Set(matching.map((each) => each.digest)).size > 1)
      throw tagNeeded(distinct);
    return matching;
  }
  // Entries without a name are the platforms of one image; each name is an image of its own.
  const groups = new Map<string, string>();
  for (const each of manifests) {
    const name = names(each)[0];
    if (name === undefined) groups.set('', '');
    else groups.set(each.digest, name);
  }
  const sameName = new Set(groups.values()).size === 1;
  if (groups.size > 1 && !sameName) throw tagNeeded(namesOf(manifests));
  return [...manifests];
}

interface Candidate {
  readonly descriptor: Descriptor;
  readonly platform: Platform;
  /** Of the configuration, where it is that of something else than an image. */
  readonly type?: string | undefined;
}

function isFilled(text: string | null | undefined): text is string {
  return text !== undefined && text !== null && text !== '';
}

async function collect(
  source: BlobSource,
  descriptor: Descriptor,
  limits: OciLimits,
  options: OpenImageOptions,
  found: Candidate[],
  budget: { documents: number },
  depth: number,
): Promise<void> {
  if (isIndexType(descriptor.mediaType)) {
    if (depth >= MAX_DEPTH || budget.documents-- <= 0) {
      throw new DecantError('LIMIT_EXCEEDED', 'The image has indexes that are nested too deep or too many.');
    }
    const index = await readIndex(source, descriptor, limits, options);
    for (const inner of index.manifests) await collect(source, inner, limits, options, found, budget, depth + 1);
    return;
  }
  if (!isManifestType(descriptor.mediaType)) {
    // An entry of another kind among images (a signature, an attestation) is not the image; alone it is an error.
    found.push({ descriptor, platform: { os: 'unknown', architecture: 'unknown' } });
    return;
  }
  const { os, architecture, variant } = descriptor.platform ?? {};
  if (isFilled(os) && isFilled(architecture)) {
    found.push({ descriptor, platform: { os, architecture, variant: variant ?? undefined } });
    return;
  }
  if (budget.documents-- <= 0)
    throw new DecantError('LIMIT_EXCEEDED', 'The source holds too many images to look through.');
  const { manifest } = await readManifest(source, descriptor, limits, options);
  if (!isConfigType(manifest.config.mediaType)) {
    const type = manifest.config.mediaType;
    found.push({ descriptor, platform: { os: 'unknown', architecture: 'unknown' }, type });
    return;
  }
  const bytes = await readChecked(source, manifest.config, 'The configuration', limits.documentBytes, options);
  found.push({ descriptor, platform: platformOf(parseConfig(bytes, 'The configuration')) });
}

function chooseByPlatform(candidates: readonly Candidate[], wanted: Platform | undefined): Descriptor {
  const images = candidates.filter(({ platform }) => platform.os !== 'unknown');
  if (images.length === 0) {
    const [first] = candidates;
    const type = first?.type ?? first?.descriptor.mediaType;
    throw new DecantError(
      'OCI_UNSUPPORTED',
      type === undefined
        ? 'The index names no image.'
        : `What the source holds is no image that can be read (${quote(type)}).`,
      { hint: notAnImageHint(type) },
    );
  }
  const distinct = new Set(images.map(({ descriptor }) => descriptor.digest));
  if (wanted === undefined && distinct.size === 1) return images[0]!.descriptor;
  const platform = wanted ?? hostPlatform();
  const matching = images.filter((each) => matchesPlatform(each.platform, platform));
  if (matching.length === 0) {
    throw platformMissing(
      platform,
      images.map((each) => each.platform),
    );
  }
  // The first one wins, as the specification says; one without a variant is the most general.
  return (matching.find((each) => each.platform.variant === undefined) ?? matching[0]!).descriptor;
}

async function readIndex(
  source: BlobSource,
  descriptor: Descriptor,
  limits: OciLimits,
  options: OpenImageOptions,
): Promise<Index> {
  const what = `The index ${descriptor.digest}`;
  const bytes = await readChecked(source, descriptor, what, limits.documentBytes, options);
  const index = parseDocument(bytes, indexSchema, what);
  expectMediaType(index.mediaType, descriptor.mediaType, what);
  return index;
}

/** Reads and checks a manifest. @throws OCI_INVALID, OCI_DIGEST_MISMATCH */
export async function readManifest(
  source: BlobSource,
  descriptor: Descriptor,
  limits: OciLimits,
  options: OpenImageOptions,
): Promise<{ readonly manifest: Manifest; readonly bytes: Uint8Array }> {
  const what = `The manifest ${descriptor.digest}`;
  const bytes = await readChecked(source, descriptor, what, limits.documentBytes, options);
  const manifest = parseDocument(bytes, manifestSchema, what);
  expectMediaType(manifest.mediaType, descriptor.mediaType, what);
  return { manifest, bytes };
}

/** A document that says it is something else than its reference says could be read in two ways. */
export function expectMediaType(own: string | undefined, declared: string, what: string): void {
  if (own !== undefined && own !== declared) {
    throw new DecantError('OCI_INVALID', `${what} is declared as ${quote(declared)} and calls itself ${quote(own)}.`);
  }
}
