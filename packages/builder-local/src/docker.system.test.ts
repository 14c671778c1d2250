import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';

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
    const answer = await run(docker!, ['-H', host, 'version'], { okCodes: [0, 1] });
    if (answer.exitCode === 0) return { host, directory };
    await sleep(200);
  }
  throw new Error('the test daemon did not start');
}

async function mountsBelow(directory: string): Promise<string[]> {
  const lines = (await readFile('/proc/mounts', 'utf8')).split('\n');
  return lines.map((line) => line.split(' ')[1] ?? '').filter((path) => path.startsWith(directory));
}

/** Asked at the socket: a client that is started for it takes seconds of its own on a busy disk. */
async function containersOf(directory: string): Promise<string[]> {
  const asking = get({ socketPath: join(directory, 'docker.sock'), path: '/containers/json?all=1' });
  const [answer] = (await once(asking, 'response')) as [IncomingMessage];
  return ((await json(answer)) as { Id: string }[]).map(({ Id }) => Id);
}

function open(kind: 'docker-buildkit' | 'docker') {
  return async (scope: Scope): Promise<DriverUnderTest> => {
    const { host, directory } = await startDaemon(scope);
    const env = { DOCKER_HOST: host };
    // The daemon keeps some of its own for as long as it runs.
    const before = new Set(await mountsBelow(directory));
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
        const mounts = (await mountsBelow(directory)).filter((path) => !before.has(path));
        return [...(await containersOf(directory)), ...mounts];
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
    run(program, ['build', '--help'], { env: { ...process.env, DOCKER_BUILDKIT: '1' }, timeoutMs: 240_000 }).then(
      ({ stdout }) => stdout.includes('--secret'),
      () => false,
    ),
  ),
);

builderContract('[backend:docker-buildkit] driver', available && help.includes(true), open('docker-buildkit'));
builderContract('[backend:docker] driver', available, open('docker'));
