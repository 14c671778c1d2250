import { join } from 'node:path';

import {
  nativeBackend,
  openBottle,
  planBottle,
  type Backend,
  type Bottle,
  type BottleImage,
  type FencePool,
} from '@decant/bottle';
import { MIB } from '@decant/core';

const LIMITS = { cpus: 2, memoryBytes: 256 * MIB, processes: 256, diskBytes: 512 * MIB, wallTimeMs: 600_000 };

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
    ...(pool === undefined ? {} : { openFence: pool.openFence }),
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
