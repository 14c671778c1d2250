import {
  memoryEntries,
  type Compress,
  type ContextEntry,
  type MemoryFile,
  type ReadContent,
  type Sha256,
} from '@decant/context';
import { DecantError, quote } from '@decant/core';

/** A build context as a remote builder is sent it: what belongs to it, and what reads it, as often as it takes. */
export interface RemoteContext {
  readonly dockerfile: {
    /** Its path among the entries, or null when it travels beside them. */
    readonly path: string | null;
    /** As the user knows it, for messages. */
    readonly displayPath: string;
    readonly bytes: Uint8Array;
  };
  /** Sorted by the bytes of their paths. */
  readonly entries: readonly ContextEntry[];
  /** A reader for one pass over the entries. */
  reader(signal: AbortSignal | undefined): ReadContent;
  /** Makes a hash that is faster than the portable one. */
  readonly sha256?: (() => Sha256) | undefined;
  /** A gzip that is better than the portable one. */
  readonly compress?: Compress | undefined;
}

/**
 * A context of files that exist only in memory; all of them belong to it, whatever an ignore file among them says.
 * @throws CONTEXT_ENTRY_UNSUPPORTED for a path that cannot be packed, DOCKERFILE_UNREADABLE without the Dockerfile.
 */
export function memoryContext(
  files: Iterable<MemoryFile>,
  options: { readonly dockerfile?: string | undefined } = {},
): RemoteContext {
  const { dockerfile = 'Dockerfile' } = options;
  const { entries, read } = memoryEntries(files);
  const entry = entries.find(({ path, type }) => path === dockerfile && type === 'file');
  if (entry === undefined) {
    throw new DecantError('DOCKERFILE_UNREADABLE', `There is no Dockerfile at ${quote(dockerfile)}.`, {
      hint: 'Give its path among the files as the option dockerfile.',
    });
  }
  const [bytes = new Uint8Array()] = read(entry);
  return { dockerfile: { path: dockerfile, displayPath: dockerfile, bytes }, entries, reader: () => read };
}
