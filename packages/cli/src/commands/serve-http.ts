import { once } from 'node:events';
import { resolve } from 'node:path';

import { DecantError, quote } from '@decant/core';
import { decantPaths } from '@decant/sdk';
import { listen, parseBuilderLimits, parseRegistryLimits } from '@decant/server';

import { invoke } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printJson, say } from '../render/terminal.ts';

export interface ServeOptions extends CommonOptions {
  readonly host: string;
  readonly port: string;
  readonly data?: string;
  readonly buildLimit: readonly string[];
  readonly registryLimit: readonly string[];
  readonly baseRegistry: readonly string[];
  readonly allowOrigin?: readonly string[];
  readonly publicUrl?: string;
}

export function serveAction(options: ServeOptions): Promise<void> {
  return invoke(options, async ({ signal }) => {
    const { host, data, baseRegistry } = options;
    const limits = parseBuilderLimits(options.buildLimit);
    await using server = await listen({
      dataDirectory: data === undefined ? decantPaths().home : resolve(data),
      host,
      port: portOf(options.port),
      builder: { limits, ...(baseRegistry.length === 0 ? {} : { baseRegistries: baseRegistry }) },
      registry: parseRegistryLimits(options.registryLimit),
      allowOrigins: originsOf(options.allowOrigin),
      publicUrl: options.publicUrl,
      onError: (error) => say(`${error.code}: ${error.message}`),
    });
    const { url, firstKey } = server;
    if (options.json === true) {
      printJson({ url, ...(firstKey === undefined ? {} : { key: firstKey }) });
    } else {
      print(url);
      if (firstKey !== undefined) {
        print(firstKey);
        say('The second line is the API key of the namespace "default". It is not shown again: keep it.');
      }
      say(`Use it with: DECANT_URL=${options.publicUrl ?? url} DECANT_API_KEY=… decant image ls`);
    }
    // Being told to stop is how this command ends.
    if (!signal.aborted) await once(signal, 'abort');
  });
}

/** @throws USAGE for what is no origin of a web page. */
export function originsOf(texts: readonly string[] = []): readonly string[] {
  for (const text of texts) {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (url?.origin === text && /^https?:$/.test(url.protocol)) continue;
    throw new DecantError('USAGE', `Not an origin: ${quote(text)}.`, {
      hint: 'Give --allow-origin a scheme and a host, such as https://app.example, and nothing behind it.',
    });
  }
  return texts;
}

/** @throws USAGE for what is no port. */
export function portOf(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : -1;
  if (port >= 0 && port <= 65_535) return port;
  throw new DecantError('USAGE', `Not a port: ${quote(text)}.`, { hint: 'Give --port a number from 0 to 65535.' });
}
