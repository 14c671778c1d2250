import type { Metadata } from './tree.ts';

/**
 * The modification time to store: that of the entry, or `latestSeconds` when it is not before that, as the
 * specification of SOURCE_DATE_EPOCH has it (reproducible-builds.org). Undefined changes nothing.
 */
export function storedTime(
  { mtimeSeconds, mtimeNanoseconds }: Metadata,
  latestSeconds: number | undefined,
): { readonly mtimeSeconds: number; readonly mtimeNanoseconds: number } {
  return latestSeconds !== undefined && mtimeSeconds >= latestSeconds
    ? { mtimeSeconds: latestSeconds, mtimeNanoseconds: 0 }
    : { mtimeSeconds, mtimeNanoseconds };
}
