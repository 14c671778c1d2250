import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import {
  nativeBackend,
  openBottle,
  openFence,
  planBottle,
  type Backend,
  type Bottle,
  type BottleImage,
  type FenceOptions,
  type FencePool,
} from '@decant/bottle';
import { MIB } from '@decant/core';

import { ROOT } from '../scripts/workspace.ts';

const LIMITS = { cpus: 2, memoryBytes: 256 * MIB, processes: 256, diskBytes: 512 * MIB, wallTimeMs: 600_000 };

/** The sidecar as it is published, one file; from sources Node would compile a hundred at every launch. */
export const SIDECAR_URL = pathToFileURL(join(ROOT, 'packages/bottle/dist/sidecar.mjs'));

/** A bottle from plan to self-probe, as the command line launches one, on an image that is ready; it may reach nothing. */
export async function launchBottle(
  folder: string,
  file: string,
  { backend = nativeBackend(), pool }: { readonly backend?: Backend; readonly pool?: FencePool | undefined } = {},
): Promise<Bottle> {
  const image: BottleImage = {
    id: 'bench',
    disk: { file },
    filesystem: 'erofs',
    config: { Env: ['PATH=/bin'], WorkingDir: '/' },
  };
  const plan = await planBottle(
    {
      name: 'bench',
      image: 'bench',
      backend: backend.name,
      egress: { policy: { routes: [], deny: [] }, resolvers: ['127.0.0.1:9'], upstreamCaFile: undefined },
      mounts: [],
      limits: LIMITS,
      agent: {
        ...{ command: ['true'], prompt: undefined, promptMode: 'argument', environmentNames: [] },
        ...{ user: undefined, workingDir: undefined },
      },
    },
    { backend },
  );
  return await openBottle(plan, {
    directory: join(folder, 'bottles'),
    backend,
    resolveImage: async () => ({ image, [Symbol.asyncDispose]: async () => {} }),
    openFence: pool?.openFence ?? ((options: FenceOptions) => openFence({ ...options, sidecarUrl: SIDECAR_URL })),
  });
}

/** Runs a command that does nothing, to its end. */
export async function runTrue(bottle: Bottle): Promise<void> {
  const running = await bottle.exec({ argv: ['true'] });
  running.stdin.end();
  const [, { exitCode }] = await Promise.all([drain(running.stdout), running.exit, drain(running.stderr)]);
  if (exitCode !== 0) throw new Error(`the command in the bottle ended with ${exitCode}`);
}

async function drain(stream: NodeJS.ReadableStream): Promise<void> {
  for await (const piece of stream) void piece;
}
