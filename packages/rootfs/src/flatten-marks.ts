import { DecantError } from '@decant/core';
import type { TarEntry } from '@decant/oci';

import { entryError } from './flatten-path.ts';
import type { ByteString } from './tree.ts';

/**
 * How an archive says that something below is gone: with names as OCI layers do (`.wh.NAME`, `.wh..wh..opq`), with
 * devices 0/0 and attributes as the kernel's overlay filesystem does, or not at all. Only OCI's names are taken for marks.
 */
export type Whiteouts = 'oci' | 'overlay' | 'none';

/** Something below the layer that goes. */
export interface Mark {
  readonly entry: TarEntry;
  /** The directory it is about. */
  readonly parents: readonly ByteString[];
  /** The name that goes there; undefined for all that lies below. */
  readonly target: ByteString | undefined;
}

/** Takes the name of an entry apart. */
export type ComponentsOfEntry = (entry: TarEntry) => readonly ByteString[];

export interface SplitLayer {
  readonly planned: readonly TarEntry[];
  readonly marks: readonly Mark[];
}

const WHITEOUT = '.wh.';
/** Names that begin like this are the storage driver's own; only the opaque mark has a meaning in an image. */
const DRIVER = '.wh..wh.';
const OPAQUE = '.wh..wh..opq';

/** Tells the marks of a layer from its entries. @throws LAYER_INVALID for a mark of nothing; OCI_UNSUPPORTED */
export function splitMarks(
  entries: readonly TarEntry[],
  whiteouts: Whiteouts,
  componentsOf: ComponentsOfEntry,
): SplitLayer {
  if (whiteouts === 'none') return { planned: entries, marks: [] };
  return whiteouts === 'oci' ? splitNames(entries, componentsOf) : splitOverlay(entries, componentsOf);
}

function splitNames(entries: readonly TarEntry[], componentsOf: ComponentsOfEntry): SplitLayer {
  const planned: TarEntry[] = [];
  const marks: Mark[] = [];
  for (const entry of entries) {
    if (!entry.path.includes(WHITEOUT)) {
      planned.push(entry);
      continue;
    }
    const components = componentsOf(entry);
    if (components.some((part) => part.startsWith(DRIVER) && part !== OPAQUE)) continue;
    if (components.slice(0, -1).some((part) => part.startsWith(WHITEOUT))) {
      throw entryError(entry, 'lies below a whiteout');
    }
    const name = components.at(-1);
    if (name?.startsWith(WHITEOUT) !== true) {
      planned.push(entry);
      continue;
    }
    const target = name.slice(WHITEOUT.length);
    if (name !== OPAQUE && (target === '' || target === '.' || target === '..')) {
      throw entryError(entry, 'is a whiteout of no name');
    }
    marks.push({ entry, parents: components.slice(0, -1), target: name === OPAQUE ? undefined : target });
  }
  return { planned, marks };
}

/** The forms of Linux's Documentation/filesystems/overlayfs.rst, with either prefix of the attributes. */
function splitOverlay(entries: readonly TarEntry[], componentsOf: ComponentsOfEntry): SplitLayer {
  const planned: TarEntry[] = [];
  const marks: Mark[] = [];
  for (const entry of entries) {
    const components = componentsOf(entry);
    const name = components.at(-1);
    const isDevice = entry.type === 'character-device' && entry.devMajor === 0 && entry.devMinor === 0;
    const isFile = entry.type === 'file' && entry.sizeBytes === 0 && attribute(entry, 'whiteout') !== undefined;
    if (name !== undefined && (isDevice || isFile)) {
      marks.push({ entry, parents: components.slice(0, -1), target: name });
      continue;
    }
    for (const kind of ['redirect', 'metacopy']) {
      if (attribute(entry, kind) === undefined) continue;
      const error = entryError(entry, `has the overlay attribute ${kind}, which is not supported`);
      throw new DecantError('OCI_UNSUPPORTED', error.message, {
        details: error.details,
        hint: 'Let the engine save the image instead, with docker: or docker-archive:.',
      });
    }
    if (entry.type === 'directory' && attribute(entry, 'opaque') === 'y') {
      marks.push({ entry, parents: components, target: undefined });
    }
    planned.push(entry);
  }
  return { planned, marks };
}

function attribute({ xattrs }: TarEntry, kind: string): string | undefined {
  const found = xattrs.find(({ name }) => name === `trusted.overlay.${kind}` || name === `user.overlay.${kind}`);
  return found === undefined ? undefined : Buffer.from(found.value).toString('latin1');
}
