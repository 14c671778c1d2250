import { spawn, type ChildProcess } from 'node:child_process';
import { open, readdir, readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { errnoOf, Scope } from '@decant/core';
import { findProgram, run } from '@decant/core/node';

import { temporaryDirectory, unmountBelow } from './temporary-directory.ts';

export interface Dockerd extends AsyncDisposable {
  /** For `DOCKER_HOST`: `unix://` and the path of the socket. */
  readonly host: string;
}

/** Programs that {@link startDockerd} needs. */
export const DOCKERD_PROGRAMS = ['dockerd', 'setpriv', 'ip'] as const;

const READY_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 60_000;

/**
 * Starts a Docker daemon of its own: private folders and socket, overlay2, a bridge that leads nowhere and no change
 * to the packet filter. It ends with this process, however that ends; disposing stops it and cleans up its mounts.
 * @throws Error with the end of the daemon's log when it does not answer within two minutes.
 */
export async function startDockerd(): Promise<Dockerd> {
  await removeLeftovers();
  await using scope = new Scope();
  const folder = scope.use(await temporaryDirectory(`decant-dockerd-${process.pid}-`)).path;
  const bridge = await createBridge(scope);
  const socket = join(folder, 'docker.sock');
  const logFile = join(folder, 'log');
  const log = await open(logFile, 'w');
  // The daemon is its own process group, so that Ctrl-C reaches the tests first; the kernel ends it with us.
  const child = spawn(
    'setpriv',
    [
      ...['--pdeathsig', 'TERM', '--', 'dockerd'],
      ...['--data-root', join(folder, 'data'), '--exec-root', join(folder, 'exec')],
      ...['--pidfile', join(folder, 'pid'), '--host', `unix://${socket}`],
      ...['--storage-driver', 'overlay2', '--bridge', bridge, '--iptables=false', '--ip6tables=false'],
      ...['--log-level', 'warn'],
    ],
    { stdio: ['ignore', log.fd, log.fd], detached: true },
  );
  const ended = new Promise<void>((resolve) => {
    child.once('error', () => resolve());
    child.once('close', () => resolve());
  });
  scope.defer(() => stop(child, ended));
  await log.close();
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (!(await dockerAnswers(`unix://${socket}`))) {
    if (child.exitCode !== null || child.pid === undefined || performance.now() > deadline) {
      const text = await readFile(logFile, 'utf8').catch(() => '');
      throw new Error(`dockerd did not start: ${text.trimEnd().split('\n').slice(-5).join('\n')}`);
    }
    await sleep(100);
  }
  const owned = scope.move();
  return { host: `unix://${socket}`, [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose]() };
}

/** Whether a daemon answers at a `unix://` address within ten seconds. */
export function dockerAnswers(host: string): Promise<boolean> {
  if (!host.startsWith('unix://')) return Promise.resolve(false);
  return new Promise((resolve) => {
    const ping = request({ socketPath: host.slice('unix://'.length), path: '/_ping', timeout: 10_000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    ping.once('timeout', () => ping.destroy());
    ping.once('error', () => resolve(false));
    ping.end();
  });
}

/** What keeps a private daemon from being started here, or undefined. */
export async function whyNoDockerd(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'needs Linux';
  if (process.getuid?.() !== 0) return 'needs root';
  for (const name of DOCKERD_PROGRAMS) {
    if ((await findProgram(name)) === undefined) return `${name} is not installed`;
  }
  return undefined;
}

/** Removes what processes left that were killed: their daemons ended with them, their folders and bridges did not. */
async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = /^decant-dockerd-(\d+)-/.exec(name)?.[1];
    if (pid === undefined || isAlive(Number(pid))) continue;
    const folder = join(tmpdir(), name);
    await unmountBelow(folder);
    await rm(folder, { recursive: true, force: true });
  }
  const links = (await run('ip', ['-o', 'link'], { timeoutMs: 60_000 })).stdout.toString('utf8');
  for (const [, name = '', pid = ''] of links.matchAll(/ (dct([0-9a-z]+)-\d+): /g)) {
    if (!isAlive(Number.parseInt(pid, 36)))
      await run('ip', ['link', 'delete', name], { timeoutMs: 60_000, okCodes: [0, 1] });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errnoOf(error) === 'EPERM';
  }
}

let bridges = 0;

/** A bridge with a subnet of 198.18.0.0/15, the range for tests of RFC 2544, that no other bridge here uses. */
async function createBridge(scope: Scope): Promise<string> {
  const name = `dct${process.pid.toString(36)}-${bridges++}`;
  const addresses = (await run('ip', ['-4', '-o', 'address'], { timeoutMs: 60_000 })).stdout.toString('utf8');
  const first = process.pid % 256;
  const subnet = Array.from({ length: 256 }, (_, index) => `198.18.${(first + index) % 256}`).find(
    (candidate) => !addresses.includes(` ${candidate}.`),
  );
  if (subnet === undefined) throw new Error('no subnet is left for a test bridge');
  await run('ip', ['link', 'add', name, 'type', 'bridge'], { timeoutMs: 60_000 });
  // Another run that looks for what is left may have been before.
  scope.defer(() => run('ip', ['link', 'delete', name], { timeoutMs: 60_000, okCodes: [0, 1] }));
  await run('ip', ['address', 'add', `${subnet}.1/24`, 'dev', name], { timeoutMs: 60_000 });
  await run('ip', ['link', 'set', name, 'up'], { timeoutMs: 60_000 });
  return name;
}

async function stop(child: ChildProcess, ended: Promise<void>): Promise<void> {
  if (child.pid === undefined) return;
  child.kill('SIGTERM');
  const cancel = new AbortController();
  await Promise.race([ended, sleep(STOP_TIMEOUT_MS, undefined, { signal: cancel.signal }).catch(() => undefined)]);
  cancel.abort();
  if (child.exitCode === null && child.signalCode === null) {
    child.kill('SIGKILL');
    await ended;
  }
}
