import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Scope } from '@decant/core';
import { findProgram } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { source } from './contract-kit.ts';
import { builderContract, type DriverUnderTest } from './contract.ts';
import { probeBuildah, probePodman } from './detect-storage.ts';
import { markedContainers } from './storage-containers.ts';
import { storageDriver } from './storage-driver.ts';
import { BUILDAH } from './storage-engine.ts';

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

describe.skipIf(!canRun)('an engine that does not heed TERM', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'decant-deaf-'));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  it('is killed when the build is cancelled, and the container that it leaves is removed', async () => {
    const program = join(directory, 'buildah');
    const id = 'a'.repeat(64);
    await writeFile(
      program,
      `#!/bin/sh
trap '' TERM
record="${directory}/overlay-containers/${id}"
if [ "$1" = rm ]; then rm -r "$record"; exit; fi
mkdir -p "$record/userdata"
echo '"'"$*"'"' | sed 's/.*--secret id=/"id=/' > "$record/userdata/buildah.json"
echo go
sleep 300
`,
      { mode: 0o755 },
    );
    const facts = {
      program,
      version: '1.28.2',
      architecture: 'amd64',
      graphRoot: directory,
      graphDriver: 'overlay',
    } as const;
    const driver = storageDriver(BUILDAH, { ...facts, rootless: false, runc: undefined }, {});
    const work = await mkdtemp(join(directory, 'work-'));
    const controller = new AbortController();
    const building = async () => {
      const request = { context: source('FROM a\n'), workDirectory: work };
      for await (const event of driver.build(request, { signal: controller.signal })) {
        if (event.type !== 'log' || event.line !== 'go') continue;
        expect(await markedContainers(directory, 'overlay')).toHaveLength(1);
        controller.abort(new Error('enough'));
      }
    };
    await expect(building()).rejects.toThrow('enough');
    expect(await markedContainers(directory, 'overlay')).toEqual([]);
    expect(await readdir(work)).toEqual([]);
  });
});

builderContract('[backend:buildah] driver', canRun && buildah !== undefined, open('buildah'));
builderContract('[backend:podman] driver', canRun && podman !== undefined, open('podman'));
