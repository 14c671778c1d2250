import { readFile, readlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { DecantError } from '@decant/core';

/**
 * Proves that a machine has a network namespace of its own in which there is no way out: no device but loopback, and no
 * route. Nothing of the image has run yet, and nothing inside has the right to change it later.
 * @throws BOTTLE_PROBE_FAILED
 */
export async function requireSealedNetwork(networkNamespace: string): Promise<void> {
  // `/proc/PID/ns/net`: beside it the kernel shows the network of that process.
  const process = dirname(dirname(networkNamespace));
  const [ours, theirs, devices, routes] = await Promise.all([
    readlink('/proc/self/ns/net'),
    readlink(networkNamespace),
    readFile(join(process, 'net/dev'), 'utf8'),
    readFile(join(process, 'net/route'), 'utf8'),
  ]).catch((error: unknown) => {
    throw failed('cannot be looked at', error);
  });
  if (ours === theirs) throw failed('is that of this machine');
  // Both have lines of headings first: two and one.
  const names = devices.split('\n').flatMap((line) => (line.includes(':') ? [line.split(':')[0]!.trim()] : []));
  if (names.some((name) => !isDead(name))) throw failed(`has the devices ${names.join(', ')}`);
  if (routes.trimEnd().split('\n').length > 1) throw failed('has routes');
}

/** Loopback, and the tunnels that kernels with those modules put into every namespace, all of them down. */
function isDead(name: string): boolean {
  return name === 'lo' || /^(?:tunl|gre|gretap|erspan|ip_vti|ip6_vti|sit|ip6tnl|ip6gre)0$/.test(name);
}

function failed(how: string, cause?: unknown): DecantError {
  return new DecantError('BOTTLE_PROBE_FAILED', `The network of the sealed bottle ${how}.`, {
    hint: 'The bottle was taken down. This is a fault of decant or of this machine; run: decant doctor',
    ...(cause === undefined ? {} : { cause }),
  });
}
