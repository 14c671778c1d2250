import { DecantError } from './errors.ts';

declare const brand: unique symbol;
type Branded<T, B extends string> = T & { readonly [brand]: B };

/** BLAKE3-256 of a chunk's plain bytes: 64 lowercase hexadecimal digits. */
export type ChunkId = Branded<string, 'ChunkId'>;
/** `cas-v1:<64 hex>` of a streaming image, or `sha256:<64 hex>` of a raw ext4 image. */
export type ImageId = Branded<string, 'ImageId'>;
export type BuildId = Branded<string, 'BuildId'>;
/** 1 to 63 characters: lowercase letters, digits and hyphens, letter or digit at both ends. */
export type Namespace = Branded<string, 'Namespace'>;

const HEX64 = /^[0-9a-f]{64}$/;

export function isChunkId(text: string): text is ChunkId {
  return HEX64.test(text);
}

export function parseChunkId(text: string): ChunkId {
  if (!isChunkId(text)) throw new DecantError('ID_INVALID', `Not a chunk id: ${quote(text)}.`);
  return text;
}

export function isImageId(text: string): text is ImageId {
  return /^(cas-v1|sha256):[0-9a-f]{64}$/.test(text);
}

export function parseImageId(text: string): ImageId {
  if (!isImageId(text)) {
    throw new DecantError('ID_INVALID', `Not an image id: ${quote(text)}.`, {
      hint: 'An image id is cas-v1: or sha256: and 64 lowercase hexadecimal digits.',
    });
  }
  return text;
}

/** The 64 digits of an image id, as they stand in object keys. */
export function imageIdDigits(id: ImageId): string {
  return id.slice(id.indexOf(':') + 1);
}

export function isStreamingImageId(id: ImageId): boolean {
  return id.startsWith('cas-v1:');
}

export function parseNamespace(text: string): Namespace {
  if (!/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(text)) {
    throw new DecantError('NAME_INVALID', `Not a namespace: ${quote(text)}.`, {
      hint: 'Use 1 to 63 lowercase letters, digits and hyphens, with a letter or digit at both ends.',
    });
  }
  return text as Namespace;
}

/** A name people give to an image, with its tag. */
export interface ImageName {
  readonly name: string;
  readonly tag: string;
}

const NAME_PART = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/**
 * Reads `NAME[:TAG]`; the tag defaults to `latest`. A name is 1 to 200 characters of lowercase parts
 * separated by `/`, each as in the OCI distribution specification's repository names.
 */
export function parseImageName(text: string): ImageName {
  const colon = text.lastIndexOf(':');
  const hasTag = colon > text.lastIndexOf('/');
  const name = hasTag ? text.slice(0, colon) : text;
  const tag = hasTag ? text.slice(colon + 1) : 'latest';
  const valid = name.length > 0 && name.length <= 200 && name.split('/').every((part) => NAME_PART.test(part));
  if (!valid || !TAG.test(tag)) {
    throw new DecantError('NAME_INVALID', `Not an image name: ${quote(text)}.`, {
      hint: 'Write NAME or NAME:TAG with lowercase letters, digits, dots, dashes and slashes, for example team/app:v1.',
    });
  }
  return { name, tag };
}

export function formatImageName({ name, tag }: ImageName): string {
  return `${name}:${tag}`;
}

/** Text in quotes for a message: control characters escaped, at most 80 characters. */
export function quote(text: string): string {
  const shown = text.length > 80 ? `${text.slice(0, 79)}…` : text;
  return JSON.stringify(shown);
}

/**
 * Any text as part of a name: lower case, every run of other characters than letters and digits one dash, none at the
 * ends. Empty when there is no letter or digit.
 */
export function slug(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
}
