import { DecantError } from '@decant/core';
import { checkLogin, createNodeFetch, decantPaths, removeLogin, saveLogin } from '@decant/sdk';

import { invoke } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { readSecret } from '../render/read-secret.ts';
import { printJson, say } from '../render/terminal.ts';
import { serverUrl } from '../wiring.ts';

export function loginAction(address: string, options: CommonOptions): Promise<void> {
  return invoke(options, async ({ signal }) => {
    const url = serverUrl('The address', address).replace(/\/+$/, '');
    const key = await readSecret(`API key for ${new URL(url).host}: `, { signal });
    if (!/^[\x21-\x7e]+$/.test(key)) {
      throw new DecantError('CONFIG_INVALID', 'That is no API key.', {
        hint: 'Pipe it in, or type it when asked: decant key create makes one.',
      });
    }
    await using http = createNodeFetch();
    await checkLogin({ url, key }, http.fetch, { signal });
    await saveLogin(decantPaths(), { url, key });
    if (options.json === true) printJson({ url });
    else say(`logged in to ${url}; decant logout works on this machine again`);
  });
}

export function logoutAction(options: CommonOptions): Promise<void> {
  return invoke(options, async () => {
    const removed = await removeLogin(decantPaths());
    if (options.json === true) printJson({ removed });
    else say(removed ? 'logged out' : 'there was no login');
  });
}
