import { DecantError, quote } from '@decant/core';

import { toByteString, type ByteString } from '../byte-string.ts';
import type { ContextEntry, PackedContext } from '../entry.ts';
import { packEntries, type PackOptions } from './pack.ts';

/** A file that exists only in memory. */
export interface MemoryFile {
  /** Relative path with `/`; directories on the way are made. */
  readonly path: string;
  /** Text is stored as UTF-8. */
  readonly content: string | Uint8Array;
  /** Permission bits, default 0o644. */
  readonly mode?: number | undefined;
}

const encoder = new TextEncoder();

/** Files from memory as a context's entries, and what reads their content. */
export interface MemoryEntries {
  /** Sorted by the bytes of their paths. */
  readonly entries: readonly ContextEntry[];
  readonly read: (entry: ContextEntry) => Iterable<Uint8Array>;
}

/**
 * Packs files from memory exactly as the same files in a directory are packed; directories have mode 0o755.
 * @throws CONTEXT_ENTRY_UNSUPPORTED for a path that is absolute, not clean, given twice or below a file.
 */
export function packMemoryContext(files: Iterable<MemoryFile>, options: PackOptions = {}): PackedContext {
  const { entries, read } = memoryEntries(files);
  return packEntries(entries, read, options);
}

/** The entries of files in memory. @throws CONTEXT_ENTRY_UNSUPPORTED as {@link packMemoryContext} does. */
export function memoryEntries(files: Iterable<MemoryFile>): MemoryEntries {
  const entries = new Map<ByteString, ContextEntry>();
  const contents = new Map<ContextEntry, Uint8Array>();
  for (const { path, content, mode = 0o644 } of files) {
    const parts = path.split('/');
    if (path.includes('\0') || parts.some((part) => part === '' || part === '.' || part === '..')) {
      throw unsupported(path, 'is not a clean relative path');
    }
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = parts.slice(0, depth).join('/');
      const there = entries.get(toByteString(parent));
      if (there !== undefined && there.type !== 'directory')
        throw unsupported(path, `is below the file ${quote(parent)}`);
      if (there === undefined) {
        entries.set(toByteString(parent), { path: parent, type: 'directory', sizeBytes: 0, mode: 0o755 });
      }
    }
    if (entries.has(toByteString(path))) throw unsupported(path, 'is given twice');
    const bytes = typeof content === 'string' ? encoder.encode(content) : content;
    const entry: ContextEntry = { path, type: 'file', sizeBytes: bytes.length, mode: mode & 0o7777 };
    entries.set(toByteString(path), entry);
    contents.set(entry, bytes);
  }
  const sorted = [...entries].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry);
  return { entries: sorted, read: (entry) => [contents.get(entry) ?? new Uint8Array()] };
}

function unsupported(path: string, why: string): DecantError {
  return new DecantError('CONTEXT_ENTRY_UNSUPPORTED', `The path ${quote(path)} ${why}.`, { details: { path } });
}
