import { digestContext, openContext } from '@decant/context/node';

export interface ListContextRequest {
  readonly context: string;
  readonly dockerfile?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a build would be sent. */
export interface ContextListing {
  /** In byte order of their paths. */
  readonly files: readonly {
    readonly path: string;
    readonly type: 'file' | 'directory' | 'symlink' | 'hardlink';
    readonly sizeBytes: number;
  }[];
  /** The ignore file that applies, relative to the context where it lies in it; null when there is none. */
  readonly ignoreFile: string | null;
  /** `sha256:` of the canonical, uncompressed archive. */
  readonly digest: string;
}

export async function listContext(request: ListContextRequest): Promise<ContextListing> {
  const { context: directory, dockerfile, signal } = request;
  const context = await openContext({ directory, dockerfile, signal });
  const { digest } = await digestContext(context, { signal });
  const files = context.entries.map(({ path, type, sizeBytes }) => ({ path, type, sizeBytes }));
  return { files, ignoreFile: context.ignoreFile, digest: `sha256:${digest}` };
}
