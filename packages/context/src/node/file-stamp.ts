import type { BigIntStats } from 'node:fs';

import { DecantError, quote } from '@decant/core';

import type { FileStamp } from '../entry.ts';

export function stampOf(stats: BigIntStats): FileStamp {
  return { device: stats.dev, inode: stats.ino, modifiedNs: stats.mtimeNs };
}

/** Throws CONTEXT_CHANGED unless the file is the one of the stamp, with the size it had. */
export function checkUnchanged(
  path: string,
  sizeBytes: number,
  stamp: FileStamp | undefined,
  stats: BigIntStats,
): void {
  const same =
    stamp !== undefined &&
    stats.isFile() &&
    stats.dev === stamp.device &&
    stats.ino === stamp.inode &&
    stats.mtimeNs === stamp.modifiedNs &&
    stats.size === BigInt(sizeBytes);
  if (!same) throw changed(path);
}

export function changed(path: string, cause?: unknown): DecantError {
  return new DecantError('CONTEXT_CHANGED', `The file ${quote(path)} changed while the context was read.`, {
    hint: 'Wait until whatever writes it has finished and try again, or exclude it in the ignore file.',
    details: { path },
    cause,
  });
}
