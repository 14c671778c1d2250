import { once } from 'node:events';

import { DecantError, formatBytes } from '@decant/core';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printJson, say } from '../render/terminal.ts';

export function verifyAction(ref: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, progress, signal }) => {
    const result = await decant.images.verify(ref, { onEvent: progress.onEvent, signal });
    progress.end();
    if (options.json === true) {
      printJson(result);
      return;
    }
    if (result.locatorMended) say('Its locator was damaged and has been written again.');
    print(`${ref} is whole: ${result.chunks} chunks, ${formatBytes(result.bytes)} verified`);
  });
}

export interface ExportOptions extends CommonOptions {
  readonly raw?: string;
  readonly sparse?: string;
}

export function exportAction(ref: string, options: ExportOptions): Promise<void> {
  return invokeWired(options, async ({ decant, progress, signal }) => {
    const { raw, sparse } = options;
    if ((raw === undefined) === (sparse === undefined)) {
      throw new DecantError('USAGE', 'Say where to: either --raw FILE or --sparse FILE.');
    }
    const file = raw ?? sparse ?? '';
    const result = await decant.images.export(
      { ref, file, sparse: sparse !== undefined },
      { onEvent: progress.onEvent, signal },
    );
    progress.end();
    if (options.json === true) printJson({ file, ...result });
    else print(`${file}: ${formatBytes(result.bytes)}, ${formatBytes(result.contentBytes)} of content`);
  });
}

export interface ServeImageOptions extends CommonOptions {
  readonly socket: string;
}

export function serveAction(ref: string, options: ServeImageOptions): Promise<void> {
  return invokeWired(options, async ({ decant, progress, signal }) => {
    const { onEvent } = progress;
    await using served = await decant.images.serve({ ref, socketPath: options.socket }, { onEvent, signal });
    progress.end();
    if (options.json === true)
      printJson({ uri: served.uri, exportName: served.exportName, sizeBytes: served.sizeBytes });
    else say(`serving ${ref} at ${served.uri} until interrupted`);
    // Being told to stop is how this command ends.
    if (!signal.aborted) await once(signal, 'abort');
  });
}
