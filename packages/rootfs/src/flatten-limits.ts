import { GIB, KIB } from '@decant/core';
import { DEFAULT_TAR_LIMITS, type TarLimits } from '@decant/oci';

/** Bounds on what the layers of an image may make the flattener hold; every excess is a LIMIT_EXCEEDED. */
export interface FlattenLimits extends TarLimits {
  /** Most entries of all layers together, with the directories that only their paths imply; default 4,000,000. */
  readonly entries: number;
  /** Most bytes of names, link targets, extended attributes and sparse maps of all entries; default 1 GiB. */
  readonly totalMetadataBytes: number;
  /** Most directory levels of a path; default 256. */
  readonly depth: number;
  /** Most bytes of names and values of the extended attributes of one entry; default 64 KiB. */
  readonly xattrBytes: number;
  /** Most bytes all layers together may unpack to; default 256 GiB. */
  readonly layerBytes: number;
  /** Most bytes of one file, holes included; default 16 TiB. */
  readonly fileBytes: number;
}

export const DEFAULT_FLATTEN_LIMITS: FlattenLimits = {
  ...DEFAULT_TAR_LIMITS,
  entries: 4_000_000,
  totalMetadataBytes: GIB,
  depth: 256,
  xattrBytes: 64 * KIB,
  layerBytes: 256 * GIB,
  fileBytes: 16 * 1024 * GIB,
};
