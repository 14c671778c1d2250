import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, isDecantError } from '@decant/core';

import { lastLinesOf } from './process-output.ts';
import type { Architecture, BuildResult, CallOptions, ExportedImage } from './driver.ts';

/** Writes an image into a file that does not exist yet. */
export type WriteArchive = (directory: string, fileName: string, options: CallOptions) => Promise<void>;

/** A build's result that removes what it exported when it is disposed of. */
export function buildResult(
  facts: { readonly image: string; readonly architecture: Architecture; readonly engine: string },
  write: WriteArchive,
): BuildResult {
  const written = new Set<string>();
  return {
    ...facts,
    async exportImage(directory: string, options: CallOptions = {}): Promise<ExportedImage> {
      const fileName = `image-${facts.image.replace(/^sha256:/, '').slice(0, 12)}.tar`;
      const file = join(directory, fileName);
      await rm(file, { force: true });
      written.add(file);
      try {
        await write(directory, fileName, options);
      } catch (error) {
        await rm(file, { force: true });
        options.signal?.throwIfAborted();
        throw exportError(error, facts.engine);
      }
      return { kind: 'docker-archive', file };
    },
    async [Symbol.asyncDispose]() {
      for (const file of written) await rm(file, { force: true });
      written.clear();
    },
  };
}

function exportError(error: unknown, engine: string): unknown {
  if (!isDecantError(error, 'PROCESS_FAILED')) return error;
  const reason = lastLinesOf(error);
  if (/no space left on device|disk quota exceeded/i.test(reason)) {
    return new DecantError('DISK_FULL', 'No space is left where the image is exported to.', { cause: error });
  }
  return new DecantError('BUILD_FAILED', `${engine} cannot export the image: ${reason.split('\n').at(-1) ?? ''}`, {
    hint: /empty export/i.test(reason) ? 'The image has no files at all; COPY something into it.' : undefined,
    cause: error,
  });
}

/** The architecture by an engine's name for it. */
export function architectureOf(name: string): Architecture | undefined {
  if (name === 'amd64' || name === 'x86_64' || name === 'x64') return 'amd64';
  return name === 'arm64' || name === 'aarch64' ? 'arm64' : undefined;
}
