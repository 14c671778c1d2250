import type { TarEntry } from '@decant/oci';

import type { FlattenLimits } from './flatten-limits.ts';
import { entryError, entryLimitError } from './flatten-path.ts';
import type { Xattr } from './tree.ts';

/** Most bytes of one value, as in Linux. */
const MAX_VALUE_BYTES = 65_536;
const MAX_NAME_BYTES = 255;
const NONE: readonly Xattr[] = [];

/** Marks of the storage driver and labels of the machine that built the image: nothing of the image's own. */
const SILENTLY_DROPPED = /^(trusted\.overlay\.|security\.selinux$)/;

/**
 * The extended attributes an entry keeps: `user.*`, capabilities and POSIX ACLs, where Linux allows them.
 * Everything else is passed to `onDropped` with the reason.
 */
export function keptXattrs(
  entry: TarEntry,
  limits: FlattenLimits,
  onDropped: (name: string, why: string) => void,
): readonly Xattr[] {
  if (entry.xattrs.length === 0) return NONE;
  let bytes = 0;
  const kept: Xattr[] = [];
  for (const { name, value } of entry.xattrs) {
    bytes += name.length + value.length;
    if (bytes > limits.xattrBytes) {
      throw entryLimitError(entry, `has ${bytes} bytes or more of extended attributes`, limits, 'xattrBytes');
    }
    if (SILENTLY_DROPPED.test(name)) continue;
    if (name.length > MAX_NAME_BYTES || value.length > MAX_VALUE_BYTES) {
      throw entryError(entry, 'has an extended attribute that is too long for Linux');
    }
    const why = whyDropped(name, entry.type);
    if (why === undefined) kept.push({ name, value });
    else onDropped(name, why);
  }
  return kept;
}

function whyDropped(name: string, type: TarEntry['type']): string | undefined {
  if (name.startsWith('user.') && name.length > 5) {
    return type === 'file' || type === 'directory' ? undefined : `a ${type} cannot have it`;
  }
  if (name === 'security.capability') return type === 'file' ? undefined : `a ${type} cannot have it`;
  if (name === 'system.posix_acl_access') return type === 'symlink' ? 'a symlink cannot have it' : undefined;
  if (name === 'system.posix_acl_default') return type === 'directory' ? undefined : `a ${type} cannot have it`;
  return 'attributes of this kind are not kept';
}
