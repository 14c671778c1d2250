import { createHash } from 'node:crypto';

import { packEntries, type PackOptions, type Sha256 } from '../archive/pack.ts';
import type { BuildContext, PackedContext } from '../entry.ts';
import { nodeGzip } from './node-gzip.ts';
import { ContentReader } from './read-content.ts';

/**
 * The archive of a context's entries: the same bytes for the same tree, on every machine. A Dockerfile that is
 * not among the entries is not in the archive; send `context.dockerfile.bytes` beside it.
 *
 * The stream throws CONTEXT_CHANGED or CONTEXT_UNREADABLE, naming the file. Memory does not grow with the context.
 */
export function packContext(context: BuildContext, options: PackOptions = {}): PackedContext {
  const { onEvent } = options;
  for (const message of context.warnings) onEvent?.({ type: 'warning', stage: 'context', message });
  const reader = new ContentReader(context.directory, options.signal);
  return packEntries(context.entries, (entry) => reader.read(entry), { ...options, sha256, compress: nodeGzip });
}

/** The digest of {@link packContext} without the bytes. */
export async function digestContext(
  context: BuildContext,
  options: Omit<PackOptions, 'gzip'> = {},
): Promise<{ readonly digest: string; readonly tarBytes: number }> {
  const { stream, digest, tarBytes } = packContext(context, options);
  for await (const piece of stream) void piece;
  return { digest: await digest, tarBytes };
}

function sha256(): Sha256 {
  const hash = createHash('sha256');
  return { update: (bytes) => hash.update(bytes), digestHex: () => hash.digest('hex') };
}
