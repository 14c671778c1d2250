import { canonicalJson, toHex, type ImageConfig, type ImageId } from '@decant/core';

import type { HashProvider } from '../hash/hash-provider.ts';

/** BLAKE3 derive-key context of image ids: part of the manifest format, version 1. */
export const IMAGE_ID_CONTEXT = 'decant 2026-11 image manifest v1';

/** `cas-v1:` and the derive-key digest of a manifest's 256-byte header. */
export function imageId(headerBytes: Uint8Array, hash: HashProvider): ImageId {
  if (headerBytes.length !== 256) throw new RangeError('a manifest header has 256 bytes');
  return `cas-v1:${toHex(hash.blake3(headerBytes, { context: IMAGE_ID_CONTEXT }))}` as ImageId;
}

/**
 * BLAKE3-256 of the RFC 8785 JSON of what runs an image: members that are absent or empty (an empty string,
 * list or object, `config` itself included) are left out, members of another name do not count.
 * An image with no configuration at all (undefined or null) has 32 zero bytes, one with an empty
 * configuration the digest of `{}`.
 */
export function configDigest(config: ImageConfig | null | undefined, hash: HashProvider): Uint8Array {
  if (config === undefined || config === null) return new Uint8Array(32);
  return hash.blake3(canonicalConfig(config));
}

/** The bytes {@link configDigest} hashes, and what a configuration object in a store holds. */
export function canonicalConfig(config: ImageConfig): Uint8Array {
  const { architecture, os, variant } = config;
  const { Cmd, Entrypoint, Env, ExposedPorts, Labels, StopSignal, User, Volumes, WorkingDir } = config.config ?? {};
  const inner = nonEmpty({ Cmd, Entrypoint, Env, ExposedPorts, Labels, StopSignal, User, Volumes, WorkingDir });
  return new TextEncoder().encode(canonicalJson(nonEmpty({ architecture, os, variant, config: inner })));
}

function nonEmpty(members: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => !isEmpty(value)));
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === '') return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}
