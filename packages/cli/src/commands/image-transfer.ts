import { formatBytes } from '@decant/core';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printJson } from '../render/terminal.ts';

interface TransferOptions extends CommonOptions {
  readonly platform?: string;
  readonly allPlatforms?: boolean;
}

export function pullAction(reference: string, directory: string, options: TransferOptions): Promise<void> {
  return invokeWired(options, async ({ decant, progress, signal }) => {
    const request = { reference, directory, platform: options.platform, all: options.allPlatforms };
    const result = await decant.images.pull(request, { onEvent: progress.onEvent, signal });
    progress.end();
    if (options.json === true) {
      printJson(result);
      return;
    }
    const facts = `${result.platforms.join(', ')}; ${result.blobs} blobs, ${formatBytes(result.bytes)}`;
    print(`${result.reference}  ${result.digest}\n  ${facts}`);
  });
}

export function pushAction(source: string, reference: string, options: TransferOptions): Promise<void> {
  return invokeWired(options, async ({ decant, progress, signal }) => {
    const request = { source, reference, platform: options.platform, all: options.allPlatforms };
    const result = await decant.images.push(request, { onEvent: progress.onEvent, signal });
    progress.end();
    if (options.json === true) {
      printJson(result);
      return;
    }
    const sent = `sent ${result.sentBlobs} blobs, ${formatBytes(result.sentBytes)}; ${result.presentBlobs} were there`;
    print(`${result.reference}  ${result.digest}\n  ${sent}`);
  });
}
