import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, errnoOf, isDecantError, toDecantError } from '@decant/core';

import type { CommandLine } from './confine.ts';
import type { Architecture, BuildResult, CallOptions, ExportedImage, ExportedLayout } from './driver.ts';
import { engineStream } from './engine-stream.ts';
import { lastLinesOf } from './process-output.ts';
import { saveLayout } from './save-layout.ts';

/** How an engine hands an image out. */
export interface ImageOutput {
  /** Writes the image into a file that does not exist yet. */
  readonly write: (directory: string, fileName: string, options: CallOptions) => Promise<void>;
  /** The command that writes the same to its standard output. */
  readonly stream: CommandLine;
  readonly env: NodeJS.ProcessEnv;
}

/** A build's result that removes what it exported when it is disposed of. */
export function buildResult(
  facts: { readonly image: string; readonly architecture: Architecture; readonly engine: string },
  output: ImageOutput,
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
        await output.write(directory, fileName, options);
      } catch (error) {
        await rm(file, { force: true });
        options.signal?.throwIfAborted();
        throw exportError(error, facts.engine);
      }
      return { kind: 'docker-archive', file };
    },
    async exportLayout(directory: string, options: CallOptions = {}): Promise<ExportedLayout> {
      try {
        return await saveLayout(engineStream(output.stream, { env: output.env, ...options }), directory, options);
      } catch (error) {
        options.signal?.throwIfAborted();
        throw exportError(error, facts.engine);
      }
    },
    async [Symbol.asyncDispose]() {
      for (const file of written) await rm(file, { force: true });
      written.clear();
    },
  };
}

function exportError(error: unknown, engine: string): unknown {
  if (errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EDQUOT') return toDecantError(error);
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
