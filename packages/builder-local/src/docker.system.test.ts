import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { sleep, type Scope } from '@decant/core';
import { findProgram, run } from '@decant/core/node';

import { builderContract, type DriverUnderTest } from './contract.ts';
import { probeDocker } from './detect.ts';

const [dockerd, docker, busybox] = await Promise.all(['dockerd', 'docker', 'busybox'].map(findProgram));
const available = process.getuid?.() === 0 && dockerd !== undefined && docker !== undefined && busybox !== undefined;

/** A daemon of our own: its own socket, images and state, no bridge and no firewall rules. */
async function startDaemon(scope: Scope): Promise<{ readonly host: string; readonly directory: string }> {
  // Short, because the path of a socket has at most 107 bytes.
  const directory = await mkdtemp('/tmp/decant-dockerd-');
  scope.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }));
  const host = `unix://${join(directory, 'docker.sock')}`;
  const daemon = spawn(
    dockerd!,
    `--host ${host} --data-root ${directory}/data --exec-root ${directory}/exec --pidfile ${directory}/pid
     --bridge none --iptables=false --ip6tables=false`.split(/\s+/),
    { stdio: 'ignore' },
  );
  const ended = once(daemon, 'exit');
  scope.defer(async () => {
    daemon.kill('SIGTERM');
    const timer = setTimeout(() => daemon.kill('SIGKILL'), 60_000);
    await ended;
    clearTimeout(timer);
  });
  for (let attempt = 0; attempt < 500 && daemon.exitCode === null; attempt++) {
    const answer = await run(docker!, ['-H', host, 'version'], { okCodes: [0, 1], timeoutMs: 20_000 });
    if (answer.exitCode === 0) return { host, directory };
    await sleep(200);
  }
  throw new Error('the test daemon did not start');
}

function open(kind: 'docker-buildkit' | 'docker') {
  return async (scope: Scope): Promise<DriverUnderTest> => {
    const { host, directory } = await startDaemon(scope);
    const env = { DOCKER_HOST: host };
    const before = (await readFile('/proc/mounts', 'utf8')).split('\n').length;
    const clients = [...new Set([docker!, '/usr/bin/docker'])];
    const found = (await Promise.all(clients.map((program) => probeDocker({ program, env })))).flat();
    const builder = found.find(({ name, usable }) => usable && name === kind);
    if (builder?.usable !== true) throw new Error(`no ${kind} here: ${JSON.stringify(found)}`);
    const index = JSON.stringify(new URL('index.ts', import.meta.url).href);
    return {
      driver: builder.driver,
      network: 'none',
      storage: directory,
      async leftovers() {
        const { stdout } = await run(docker!, ['ps', '--all', '--quiet'], { env: { ...process.env, ...env } });
        const mounts = (await readFile('/proc/mounts', 'utf8')).split('\n').length - before;
        const containers = stdout
          .toString()
          .split('\n')
          .filter((line) => line !== '');
        return mounts > 0 && containers.length > 0 ? [...containers, `${mounts} mounts`] : containers;
      },
      openInChild: `import { probeDocker } from ${index};
        const found = await probeDocker(${JSON.stringify({ program: builder.program, env })});
        const { driver } = found.find(({ name }) => name === ${JSON.stringify(kind)});`,
    };
  };
}

const clients = docker === undefined ? [] : [...new Set([docker, '/usr/bin/docker'])];
const help = await Promise.all(
  clients.map((program) =>
    run(program, ['build', '--help'], { env: { ...process.env, DOCKER_BUILDKIT: '1' }, timeoutMs: 60_000 }).then(
      ({ stdout }) => stdout.includes('--secret'),
      () => false,
    ),
  ),
);

builderContract('[backend:docker-buildkit] driver', available && help.includes(true), open('docker-buildkit'));
builderContract('[backend:docker] driver', available, open('docker'));
