import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { withoutSyntaxLine } from '@decant/context';

import type { BuildRequest, CallOptions } from './driver.ts';
import { removeTree } from './remove-tree.ts';

/** Where one build keeps its files; everything is below `root`. */
export interface BuildFiles {
  readonly root: string;
  readonly context: string;
  readonly dockerfile: string;
  readonly imageIdFile: string;
  readonly temporary: string;
  /** Removes what is here when this process is gone; disposed of after the files were removed. */
  readonly janitor: AsyncDisposable | undefined;
}

export interface LayOptions extends CallOptions {
  /** Called with the directory before anything is written into it. */
  readonly onRoot?: ((root: string) => AsyncDisposable) | undefined;
  /** Changes the Dockerfile that the engine reads. */
  readonly edit?: ((dockerfile: Uint8Array) => Uint8Array) | undefined;
}

/**
 * Lays out what an engine reads: the filtered context, and beside it, where COPY cannot reach, the Dockerfile with an
 * empty ignore file of its own, so that an ignore file in the context is content and not a rule. The directory's
 * name is new each time: BuildKit keeps what it was sent by the name, and takes a file of equal size and time for
 * the one it has, while every file of a context may have the same time.
 */
export async function layBuildFiles(request: BuildRequest, options: LayOptions): Promise<BuildFiles> {
  const root = await mkdtemp(join(request.workDirectory, 'build-'));
  const files: BuildFiles = {
    root,
    context: join(root, 'context'),
    dockerfile: join(root, 'file', 'Dockerfile'),
    imageIdFile: join(root, 'image-id'),
    temporary: join(root, 'tmp'),
    janitor: options.onRoot?.(root),
  };
  try {
    for (const name of ['context', 'file', 'tmp']) await mkdir(join(root, name));
    const dockerfile = withoutSyntaxLine(request.context.dockerfile.bytes);
    await writeFile(files.dockerfile, options.edit?.(dockerfile) ?? dockerfile);
    await writeFile(`${files.dockerfile}.dockerignore`, '');
    await request.context.materialize(files.context, { signal: options.signal });
  } catch (error) {
    await removeTree(root);
    await files.janitor?.[Symbol.asyncDispose]();
    throw error;
  }
  return files;
}
