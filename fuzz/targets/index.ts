import type { FuzzTarget } from '../target.ts';
import { bottleManifestTarget } from './bottle-manifest.ts';
import { clientHelloTarget, connectTarget, dnsTarget, httpHeadTarget } from './egress.ts';
import { dockerArchiveTarget } from './docker-archive.ts';
import { layerGzipTarget, layerZstdTarget } from './layer-compression.ts';
import { erofsTarget } from './erofs.ts';
import { locatorTarget } from './locator.ts';
import { manifestTarget } from './manifest.ts';
import { ociConfigTarget, ociIndexTarget, ociManifestTarget } from './oci-json.ts';
import { packTarget } from './pack.ts';
import { paxTarget, tarTarget } from './tar.ts';
import { zstdTarget } from './zstd.ts';

/** Every parser that is fuzzed. To add one, write its target beside these and list it. */
export const TARGETS: readonly FuzzTarget[] = [
  manifestTarget,
  packTarget,
  locatorTarget,
  zstdTarget,
  tarTarget,
  paxTarget,
  layerGzipTarget,
  layerZstdTarget,
  ociIndexTarget,
  ociManifestTarget,
  ociConfigTarget,
  dockerArchiveTarget,
  erofsTarget,
  connectTarget,
  httpHeadTarget,
  clientHelloTarget,
  dnsTarget,
  bottleManifestTarget,
];

/** What an image of others is read with: archives, their metadata and compression, the documents around them. */
export const IMAGE_TARGETS: readonly FuzzTarget[] = [
  tarTarget,
  paxTarget,
  layerGzipTarget,
  layerZstdTarget,
  ociIndexTarget,
  ociManifestTarget,
  ociConfigTarget,
  dockerArchiveTarget,
];

/** @throws RangeError when there is none of that name. */
export function findTarget(name: string): FuzzTarget {
  const target = TARGETS.find((item) => item.name === name);
  if (target === undefined) throw new RangeError(`no fuzz target ${JSON.stringify(name)}`);
  return target;
}
