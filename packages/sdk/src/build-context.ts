import { createHash } from 'node:crypto';

import { ContentReader, nodeGzip, openContext, type BuildContext } from '@decant/context/node';
import { stage } from '@decant/core';
import type { RemoteContext } from '@decant/builder-remote';

import type { WorkOptions } from './session.ts';

/** Decides what of a directory belongs to a build, as a stage of its own. */
export async function readContext(
  request: { readonly context: string; readonly dockerfile?: string | undefined },
  { onEvent, signal }: WorkOptions,
): Promise<BuildContext> {
  return stage(onEvent, 'context', async (finish) => {
    const context = await openContext({ directory: request.context, dockerfile: request.dockerfile, signal });
    for (const message of context.warnings) onEvent?.({ type: 'warning', stage: 'context', message });
    finish({
      bytes: context.totals.bytes,
      message: `${context.totals.files} ${context.totals.files === 1 ? 'file' : 'files'}`,
    });
    return context;
  });
}

/** A context of a directory as a remote builder is sent it; memory does not grow with it. */
export function remoteContextOf(context: BuildContext): RemoteContext {
  return {
    dockerfile: context.dockerfile,
    entries: context.entries,
    reader(signal) {
      const reader = new ContentReader(context.directory, signal);
      return (entry) => reader.read(entry);
    },
    compress: nodeGzip,
    sha256() {
      const hash = createHash('sha256');
      return { update: (bytes) => hash.update(bytes), digestHex: () => hash.digest('hex') };
    },
  };
}
