import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Scope } from '@decant/core';
import { findProgram } from '@decant/core/node';

import { markedContainers } from './buildah-containers.ts';
import { builderContract, type DriverUnderTest } from './contract.ts';
import { probeBuildah } from './detect.ts';

const [buildah, busybox] = await Promise.all(['buildah', 'busybox'].map(findProgram));
const available = process.getuid?.() === 0 && buildah !== undefined && busybox !== undefined;

async function open(scope: Scope): Promise<DriverUnderTest> {
  const directory = await mkdtemp(join(tmpdir(), 'decant-buildah-'));
  scope.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
  const options = { storageRoot: join(directory, 'root'), runRoot: join(directory, 'run') };
  const [builder] = await probeBuildah(options);
  if (builder?.usable !== true) throw new Error(`buildah does not work: ${JSON.stringify(builder)}`);
  const index = JSON.stringify(new URL('index.ts', import.meta.url).href);
  return {
    driver: builder.driver,
    network: 'default',
    async leftovers() {
      const mounts = (await readFile('/proc/mounts', 'utf8')).split('\n').filter((line) => line.includes(directory));
      const containers = (
        await Promise.all(['overlay', 'vfs'].map((driver) => markedContainers(options.storageRoot, driver)))
      ).flat();
      return [...mounts, ...containers.map(({ id }) => id)];
    },
    openInChild: `import { probeBuildah } from ${index};
      const [{ driver }] = await probeBuildah(${JSON.stringify(options)});`,
  };
}

builderContract('[backend:buildah] driver', available, open);
