import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { requireSealedNetwork } from './sealed-network.ts';

const DEVICES =
  'Inter-|   Receive\n face |bytes\n    lo:       0       0\n tunl0:       0       0\nip6tnl0:       0       0\n';
const ROUTES = 'Iface\tDestination\tGateway\tFlags\n';

/** Stands for the folder of a process in /proc. */
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-sealed-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function judge(devices: string, routes: string): Promise<void> {
  for (const name of ['ns', 'net']) await mkdir(join(folder, name));
  await symlink('net:[1]', join(folder, 'ns/net'));
  await writeFile(join(folder, 'net/dev'), devices);
  await writeFile(join(folder, 'net/route'), routes);
  await requireSealedNetwork(join(folder, 'ns/net'));
}

it('loopback and tunnels that the kernel puts everywhere, and no route, are a sealed network', async () => {
  await expect(judge(DEVICES, ROUTES)).resolves.toBeUndefined();
});

it.each([
  ['a device', `${DEVICES}  eth0:       0       0\n`, ROUTES, 'has the devices lo, tunl0, ip6tnl0, eth0'],
  ['a device like a tunnel', `${DEVICES} tunl01:       0       0\n`, ROUTES, 'has the devices'],
  ['a route', DEVICES, `${ROUTES}lo\t0000000A\t00000000\t0001\n`, 'has routes'],
])('%s is a way out', async (_, devices, routes, why) => {
  await expect(judge(devices, routes)).rejects.toMatchObject({
    code: 'BOTTLE_PROBE_FAILED',
    message: expect.stringContaining(why) as string,
  });
});

it('the network of this machine is none, and neither is one that cannot be looked at', async () => {
  await expect(requireSealedNetwork('/proc/self/ns/net')).rejects.toThrow('is that of this machine');
  await expect(requireSealedNetwork(join(folder, 'ns/net'))).rejects.toMatchObject({ code: 'BOTTLE_PROBE_FAILED' });
});
