import { DecantError, GIB, MIB } from '@decant/core';

/** Bounds on what an image may make its reader do; every excess is a LIMIT_EXCEEDED. */
export interface OciLimits {
  /** Most bytes of an index, manifest or configuration; default 4 MiB. */
  readonly documentBytes: number;
  /** Most layers of an image; default 1,000. */
  readonly layers: number;
  /** Most bytes one layer may unpack to; default 128 GiB. */
  readonly layerBytes: number;
  /** Most times its stored size a layer may unpack to, once that is over 256 MiB; default 200. */
  readonly layerRatio: number;
  /** Most bytes of the window of a zstd frame, which its decoder has to hold; default 128 MiB. */
  readonly zstdWindowBytes: number;
  /** Most members of an archive of an image (its blobs and documents, not the files in its layers); default 20,000. */
  readonly archiveMembers: number;
}

export const DEFAULT_OCI_LIMITS: OciLimits = {
  documentBytes: 4 * MIB,
  layers: 1000,
  layerBytes: 128 * GIB,
  layerRatio: 200,
  zstdWindowBytes: 128 * MIB,
  archiveMembers: 20_000,
};

/**
 * The error for what goes beyond a limit that a caller can set: its name and value are in the details and in the hint. The message
 * ends with a full stop.
 */
export function limitError(
  message: string,
  limit: { readonly name: string; readonly value: number },
  details: Readonly<Record<string, unknown>> = {},
): DecantError {
  return new DecantError('LIMIT_EXCEEDED', message, {
    details: { ...details, limit: limit.value, limitName: limit.name },
    hint: `If the image is to be trusted, raise the limit: --limit ${limit.name}=NUMBER, or \`limits.${limit.name}\`; it is ${limit.value}.`,
  });
}

/** Below this many unpacked bytes the ratio does not matter: small layers of zeros are common. */
export const RATIO_FLOOR_BYTES = 256 * MIB;
