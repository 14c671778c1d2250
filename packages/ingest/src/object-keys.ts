import { imageIdDigits, type BuildId, type ImageId, type Namespace } from '@decant/core';

/** Where the objects of a namespace lie; formats.md, "Object keys". */
export function namespacePrefix(namespace: Namespace): string {
  return `ns/${namespace}/`;
}

export function stagingPrefix(namespace: Namespace, build: BuildId): string {
  return `${namespacePrefix(namespace)}staging/${build}`;
}

/** Whether a key is one of what builders have staged, in any namespace. */
export function isStagingKey(key: string): boolean {
  return /^ns\/[^/]+\/staging\//.test(key);
}

export function manifestKey(namespace: Namespace, image: ImageId): string {
  return `${namespacePrefix(namespace)}manifests/${imageIdDigits(image)}`;
}

export function locatorKey(namespace: Namespace, image: ImageId): string {
  return `${namespacePrefix(namespace)}locators/${imageIdDigits(image)}`;
}

export function configKey(namespace: Namespace, digest: string): string {
  return `${namespacePrefix(namespace)}configs/${digest}`;
}

export function packKey(namespace: Namespace, digest: string): string {
  return `${namespacePrefix(namespace)}packs/${digest.slice(0, 2)}/${digest}`;
}

export function recordKey(namespace: Namespace, image: ImageId): string {
  return `${namespacePrefix(namespace)}records/${imageIdDigits(image)}.json`;
}

export function archiveKey(namespace: Namespace, image: ImageId): string {
  return `${namespacePrefix(namespace)}images/${imageIdDigits(image)}.ext4.zst`;
}
