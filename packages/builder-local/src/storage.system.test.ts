import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Scope } from '@decant/core';
import { findProgram } from '@decant/core/node';

import { builderContract, type DriverUnderTest } from './contract.ts';
import { probeBuildah, probePodman } from './detect-storage.ts';
import { markedContainers } from './storage-containers.ts';

const [buildah, podman, busybox] = await Promise.all(['buildah', 'podman', 'busybox'].map(findProgram));
const canRun = process.getuid?.() === 0 && busybox !== undefined;

function open(name: 'buildah' | 'podman') {
  return async (scope: Scope): Promise<DriverUnderTest> => {
    const directory = await mkdtemp(join(tmpdir(), `decant-${name}-`));
    scope.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
    const options = { storageRoot: join(directory, 'root'), runRoot: join(directory, 'run') };
    const [builder] = await (name === 'buildah' ? probeBuildah(options) : probePodman(options));
    if (builder?.usable !== true) throw new Error(`${name} does not work: ${JSON.stringify(builder)}`);
    const index = JSON.stringify(new URL('index.ts', import.meta.url).href);
    const probe = name === 'buildah' ? 'probeBuildah' : 'probePodman';
    return {
      driver: builder.driver,
      network: 'default',
      storage: directory,
      async leftovers() {
        const mounts = (await readFile('/proc/mounts', 'utf8')).split('\n').filter((line) => line.includes(directory));
        const containers = (
          await Promise.all(['overlay', 'vfs'].map((driver) => markedContainers(options.storageRoot, driver)))
        ).flat();
        return [...mounts, ...containers.map(({ id }) => id)];
      },
      openInChild: `import { ${probe} } from ${index};
        const [{ driver }] = await ${probe}(${JSON.stringify(options)});`,
    };
  };
}

builderContract('[backend:buildah] driver', canRun && buildah !== undefined, open('buildah'));
builderContract('[backend:podman] driver', canRun && podman !== undefined, open('podman'));
