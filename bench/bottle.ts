import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import {
  collectBottles,
  dockerBackend,
  nativeBackend,
  openFencePool,
  SandboxReserve,
  type Backend,
} from '@decant/bottle';
import { MIB, Scope, sleep } from '@decant/core';
import { run } from '@decant/core/node';
import { startDockerd, whyNoDockerd } from '@decant/testkit';

import { ROOT } from '../scripts/workspace.ts';
import { launchBottle, runTrue, SIDECAR_URL } from './bottle-launch.ts';
import { benchBottleProxy } from './bottle-proxy.ts';
import { interleaved, median, wallSecondsOf } from './measure.ts';
import type { BenchResult, Goal } from './report.ts';

/** Bounds of the design. */
const GOALS: Readonly<Record<string, Goal>> = {
  native_cold_vs_docker_run: { most: 0.7 },
  native_warm_vs_docker_run: { most: 0.2 },
  docker_backend_vs_docker_run: { most: 2 },
  exec_vs_docker_exec: { most: 0.3 },
  proxied_vs_direct_throughput: { least: 0.5 },
};

const IMAGE = 'decant-bench';
const APPLETS = ['sh', 'true', 'dd', 'sleep'];
const TIMEOUT_MS = 120_000;
const SETTLE_MS = 50;

/**
 * Bottles of the native backend against a Docker daemon of its own, each from the call to the end of the first command:
 * cold with everything, warm with a fence from a pool and the programs that set up a sandbox in reserve. Both sides are long-lived programs: the daemon and this process were
 * started, have looked at what the machine can do, and have the image at hand, before any round. Docker's times include
 * its client program, which is how one asks it; ours is the library, called in this process. What the proxy costs is
 * measured by the benchmark `bottle-proxy`, and is among the fields.
 */
export async function benchBottle({ short }: { readonly short: boolean }): Promise<BenchResult> {
  await using scope = new Scope();
  const folder = await mkdtemp(join(tmpdir(), 'decant-bench-bottle-'));
  scope.defer(() => rm(folder, { recursive: true, force: true }));
  const { file, tree } = await busyboxImage(folder);
  const peer = await startPeer(scope, tree);
  // The sidecar that is measured is the one of these sources.
  await run(join(ROOT, 'node_modules/.bin/tsdown'), [], {
    cwd: join(ROOT, 'packages/bottle'),
    timeoutMs: TIMEOUT_MS,
  });
  const backend = nativeBackend();
  const dockered = peer === undefined ? undefined : dockerBackend({ host: peer.host });
  const reserve = scope.use(new SandboxReserve({ size: 1 }));
  const ready = nativeBackend({ reserve });
  await ready.probe();
  const pool = scope.use(openFencePool({ size: 2, sidecarUrl: SIDECAR_URL }));
  const bottle = scope.use(await launchBottle(folder, file, { backend }));
  const teardown: number[] = [];
  const prepareWarm = async () => {
    reserve.fill();
    await pool.filled();
  };
  /** The launch and its first command; what follows is not part of it. */
  const launch = async (warm: boolean, which: Backend = warm ? ready : backend): Promise<number> => {
    if (warm) await prepareWarm();
    await using own = new Scope();
    const seconds = await wallSecondsOf(async () => {
      const launched = own.use(await launchBottle(folder, file, { backend: which, ...(warm ? { pool } : {}) }));
      await runTrue(launched);
    });
    const ending = await wallSecondsOf(() => own[Symbol.asyncDispose]());
    if (which !== dockered) teardown.push(ending);
    // What is made for the next one takes nothing from what is measured next.
    if (warm) await prepareWarm();
    return seconds;
  };
  const rounds = short ? { least: 1, most: 1 } : { least: 15, most: 40, untilMs: 90_000, warmUp: 2 };
  const samples = await interleaved(rounds, {
    cold: () => launch(false),
    warm: () => launch(true),
    exec: async () => {
      const seconds = await wallSecondsOf(() => runTrue(bottle));
      // The joiner for the next command is started now, and takes nothing from what is measured next.
      await sleep(SETTLE_MS);
      return seconds;
    },
    ...(dockered === undefined ? {} : { ...peer?.tasks, dockerBackend: () => launch(false, dockered) }),
  });
  const has = dockered !== undefined;
  const ratio = (ours: 'cold' | 'warm' | 'exec' | 'dockerBackend', theirs: 'dockerRun' | 'dockerExec') =>
    has ? samples.ratio(ours, theirs) : null;
  const proxy = await benchBottleProxy({ short });
  return {
    name: 'bottle',
    short,
    input: { rounds: samples.of('cold').length, ...proxy.input },
    fields: {
      native_cold_vs_docker_run: ratio('cold', 'dockerRun'),
      native_warm_vs_docker_run: ratio('warm', 'dockerRun'),
      docker_backend_vs_docker_run: ratio('dockerBackend', 'dockerRun'),
      exec_vs_docker_exec: ratio('exec', 'dockerExec'),
      ...proxy.fields,
    },
    goals: GOALS,
    absolute: {
      native_cold_ms: samples.median('cold') * 1000,
      native_warm_ms: samples.median('warm') * 1000,
      exec_ms_p50: samples.median('exec') * 1000,
      ...proxy.absolute,
      teardown_ms: median(teardown) * 1000,
      gc16_ms: await measureCollection(folder, file, short ? 2 : 16),
      snapshot_mb_s: await measureExport(bottle, short ? 16 : 256),
      ...(has
        ? {
            docker_run_ms: samples.median('dockerRun') * 1000,
            docker_exec_ms: samples.median('dockerExec') * 1000,
            docker_backend_ms: samples.median('dockerBackend') * 1000,
          }
        : {}),
    },
  };
}

async function busyboxImage(folder: string): Promise<{ readonly file: string; readonly tree: string }> {
  const tree = join(folder, 'tree');
  for (const name of ['bin', 'etc', 'tmp']) await mkdir(join(tree, name), { recursive: true });
  await copyFile('/bin/busybox', join(tree, 'bin/busybox'));
  for (const name of APPLETS) await symlink('busybox', join(tree, 'bin', name));
  const file = join(folder, 'image.erofs');
  await run('mkfs.erofs', [file, tree], { timeoutMs: TIMEOUT_MS });
  return { file, tree };
}

/** The same image in a daemon of its own, with a container that waits; nothing where there can be no daemon. */
async function startPeer(scope: Scope, tree: string) {
  const why = await whyNoDockerd();
  if (why !== undefined) {
    console.log(`no Docker to compare with: ${why}`);
    return undefined;
  }
  const { host } = scope.use(await startDockerd());
  const docker = async (...args: string[]) =>
    (await run('docker', args, { env: { ...process.env, DOCKER_HOST: host }, timeoutMs: TIMEOUT_MS })).stdout;
  await run('sh', ['-c', `tar -C '${tree}' -c . | docker -H '${host}' import - ${IMAGE}`], { timeoutMs: TIMEOUT_MS });
  const id = (await docker('run', '-d', '--network', 'none', IMAGE, '/bin/sleep', '3600')).toString().trim();
  scope.defer(() => docker('rm', '-f', id));
  return {
    host,
    tasks: {
      dockerRun: () => wallSecondsOf(() => docker('run', '--rm', '--network', 'none', IMAGE, '/bin/true')),
      dockerExec: () => wallSecondsOf(() => docker('exec', id, '/bin/true')),
    },
  };
}

/** What it takes to clean up after a supervisor with so many bottles that was killed. */
async function measureCollection(folder: string, file: string, count: number): Promise<number> {
  const home = join(folder, 'killed');
  await mkdir(home);
  const flags = ['--conditions=@decant/source', join(ROOT, 'bench/bottle-launcher.ts')];
  const child = spawn(process.execPath, [...flags, home, file, `${count}`], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await once(child.stdout, 'data');
  } finally {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
  const seconds = await wallSecondsOf(async () => {
    const { collected, failed } = await collectBottles({
      directory: join(home, 'bottles'),
      backends: [nativeBackend()],
    });
    if (collected.length !== count || failed.length > 0) throw new Error(`${collected.length} of ${count} collected`);
  });
  return seconds * 1000;
}

/** Megabytes a second of the layer of what a bottle wrote. */
async function measureExport(bottle: Awaited<ReturnType<typeof launchBottle>>, megabytes: number): Promise<number> {
  const writing = await bottle.exec({
    argv: ['dd', 'if=/dev/urandom', 'of=/tmp/big', `bs=${MIB}`, `count=${megabytes}`],
  });
  writing.stdin.end();
  writing.stdout.resume();
  writing.stderr.resume();
  await writing.exit;
  let bytes = 0;
  const seconds = await wallSecondsOf(async () => {
    for await (const piece of bottle.snapshot()) bytes += (piece as Buffer).length;
  });
  if (bytes < megabytes * MIB) throw new Error('the layer lacks what was written');
  return bytes / 1e6 / seconds;
}
