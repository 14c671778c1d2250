import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cp, mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { createRemoteBuilder, memoryContext, type RemoteBuilder, type RemoteContext } from '@decant/builder-remote';
import { openContext, packContext } from '@decant/context/node';
import { Scope, sleep } from '@decant/core';
import { run } from '@decant/core/node';
import { createNodeFetch } from '@decant/transport/node';

import { cuttingProxy } from '../e2e/support/cutting-proxy.ts';
import { remoteContextOf } from '../packages/sdk/src/build-context.ts';
import { ROOT } from '../scripts/workspace.ts';
import { interleaved, wallSecondsOf } from './measure.ts';
import type { BenchResult, Goal } from './report.ts';

const CHANGED_FILE_BYTES = 1000;

/** Bounds of design goals. */
const GOALS: Readonly<Record<string, Goal>> = {
  context_pack_vs_gnu_tar_gzip: { most: 1 },
  context_rss_mb_5gb: { most: 150 },
  server_rss_mb_5gb: { most: 150 },
  resend_bytes_one_of_10k: { most: 1_000_000 + CHANGED_FILE_BYTES },
  overhead_vs_engine: { most: 1.3 },
  cancel_s_max: { most: 5 },
};

const PROGRAM = join(ROOT, 'packages/cli/bin/decant.cjs');
const DOCKERFILE = 'FROM scratch\nCOPY busybox /bin/sh\n';
const TIMEOUT_MS = 30 * 60_000;

/** Packing, sending and building at a real service, against GNU tar with gzip and the bare engine. */
export async function benchBuild({ short }: { readonly short: boolean }): Promise<BenchResult> {
  await using scope = new Scope();
  const folder = await mkdtemp(join(tmpdir(), 'decant-bench-build-'));
  scope.defer(() => rm(folder, { recursive: true, force: true }));
  // The command and the server are measured as people get them: built.
  await run(process.execPath, ['scripts/turbo.ts', 'run', 'build', '--filter=@decant/cli'], {
    cwd: ROOT,
    timeoutMs: TIMEOUT_MS,
  });
  const tree = join(folder, 'tree');
  await sourceTree(tree, short);
  const memoryBytes = short ? 64e6 : 5e9;
  const packing = await measurePacking(tree, short ? 1 : 3);

  const server = scope.use(await startServer(join(folder, 'server')));
  const http = scope.use(createNodeFetch());
  const builder = createRemoteBuilder({ baseUrl: server.url, fetch: http.fetch, token: server.key });
  const proxy = scope.use(await cuttingProxy(server.url));
  const proxied = createRemoteBuilder({ baseUrl: proxy.url, fetch: http.fetch, token: server.key });
  const busybox = await readFile('/bin/busybox');
  const steps = (text: string) =>
    memoryContext([
      { path: 'Dockerfile', content: DOCKERFILE + text },
      { path: 'busybox', content: busybox, mode: 0o755 },
    ]);

  const resend = await measureResend(proxied, () => proxy.sentBytes(), short ? 1000 : 10_000);
  const lines = short ? 5000 : 100_000;
  const linesPerSecond = await measureLog(
    builder,
    steps(`RUN i=0; while [ $i -lt ${lines} ]; do i=$((i+1)); echo $i; done\n`),
    lines,
  );
  const cancelled = await measureCancel(builder, steps('RUN echo it sleeps now; sleep 1000\n'), short ? 1 : 5);
  const killed = await measureKilled(folder);
  const overhead = await measureOverhead(builder, folder, short ? 1 : 3, short ? 1 : 3);
  // A server of its own: the peak of one that has built before would be that of the builds.
  const receiver = scope.use(await startServer(join(folder, 'receiver')));
  const peaks = await measureMemory(receiver, folder, memoryBytes);
  return {
    name: 'build',
    short,
    input: { packedBytes: packing.tarBytes, lines, memoryContextBytes: memoryBytes },
    fields: {
      context_pack_vs_gnu_tar_gzip: packing.ours / packing.theirs,
      context_rss_mb_5gb: peaks.client,
      server_rss_mb_5gb: peaks.server,
      resend_bytes_one_of_10k: resend,
      overhead_vs_engine: overhead.ours / overhead.bare,
      cancel_s_max: Math.max(...cancelled, ...killed),
      log_lines_per_s: linesPerSecond,
    },
    goals: GOALS,
    absolute: {
      pack_s: packing.ours,
      gnu_tar_gzip_s: packing.theirs,
      pack_bytes: packing.packedBytes,
      gnu_tar_gzip_bytes: packing.theirBytes,
      build_at_service_s: overhead.ours,
      build_bare_engine_s: overhead.bare,
    },
  };
}

/** Source code and programs: what contexts are mostly made of. */
async function sourceTree(tree: string, short: boolean): Promise<void> {
  await mkdir(tree, { recursive: true });
  for (const name of ['packages', 'e2e', 'bench', 'docs']) {
    await cp(join(ROOT, name), join(tree, name), {
      recursive: true,
      filter: (path) => !/node_modules|[/\\]dist$/.test(path.slice(ROOT.length)),
    });
  }
  if (!short) await cp('/usr/lib/x86_64-linux-gnu/perl-base', join(tree, 'perl'), { recursive: true });
  if (!short) await cp(process.execPath, join(tree, 'node'));
  await writeFile(join(tree, 'Dockerfile'), 'FROM scratch\nCOPY . /\n');
}

async function measurePacking(tree: string, rounds: number) {
  let [tarBytes, packedBytes, theirBytes] = [0, 0, 0];
  // Level 6, the default of both.
  const peer = [
    `tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C '${tree}' -cf - .`,
    'gzip -n -6',
    'wc -c',
  ].join(' | ');
  const samples = await interleaved(
    { least: rounds, most: rounds },
    {
      ours: () =>
        wallSecondsOf(async () => {
          const packed = packContext(await openContext({ directory: tree }), { gzip: true });
          packedBytes = 0;
          for await (const piece of packed.stream) packedBytes += piece.length;
          tarBytes = packed.tarBytes;
          await packed.digest;
        }),
      theirs: () =>
        wallSecondsOf(async () => {
          theirBytes = Number((await run('bash', ['-c', peer], { timeoutMs: TIMEOUT_MS })).stdout.toString());
        }),
    },
  );
  return { ours: samples.median('ours'), theirs: samples.median('theirs'), tarBytes, packedBytes, theirBytes };
}

interface BenchServer extends AsyncDisposable {
  readonly url: string;
  readonly key: string;
  readonly child: ChildProcess;
}

async function startServer(data: string): Promise<BenchServer> {
  const child = spawn(process.execPath, [PROGRAM, 'serve', '--port', '0', '--data', data], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => (text += piece));
  for (let i = 0; text.split('\n').length < 3; i++) {
    if (i > 600 || child.exitCode !== null) throw new Error(`the server did not start: ${text}`);
    await sleep(100);
  }
  const [url = '', key = ''] = text.split('\n');
  return {
    url,
    key,
    child,
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

/** Bytes on the wire for a build of which one file changed, until the service has taken it. */
async function measureResend(builder: RemoteBuilder, sentBytes: () => number, count: number): Promise<number> {
  const files = Array.from({ length: count }, (_, index) => ({
    path: `src/${index % 97}/file-${index}.txt`,
    content: randomBytes(CHANGED_FILE_BYTES),
  }));
  files.push({ path: 'Dockerfile', content: Buffer.from('FROM scratch\nCOPY src /src\n') });
  await untilTaken(builder, memoryContext(files));
  files[count >> 1] = { ...files[count >> 1]!, content: randomBytes(CHANGED_FILE_BYTES) };
  const before = sentBytes();
  await untilTaken(builder, memoryContext(files));
  return sentBytes() - before;
}

/** Leaving the build ends it: only the way to the service is of interest. */
async function untilTaken(builder: RemoteBuilder, context: RemoteContext): Promise<void> {
  for await (const event of builder.build({ context, transfer: 'files' })) if (event.type === 'log') return;
}

async function measureLog(builder: RemoteBuilder, context: RemoteContext, lines: number): Promise<number> {
  let [first, last, seen] = [Number.NaN, Number.NaN, 0];
  for await (const event of builder.build({ context, cache: 'ignore' })) {
    if (event.type !== 'log' || !/^\d+$/.test(event.line)) continue;
    if (Number(event.line) !== ++seen) throw new Error(`line ${event.line} came in place of line ${seen}`);
    if (seen === 1) first = performance.now();
    last = performance.now();
  }
  if (seen !== lines) throw new Error(`the log ended after ${seen} of ${lines} lines`);
  return lines / ((last - first) / 1000);
}

/** Seconds from the abort until the service says that the build has ended. */
async function measureCancel(builder: RemoteBuilder, context: RemoteContext, rounds: number): Promise<number[]> {
  const seconds: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const controller = new AbortController();
    let started = Number.NaN;
    try {
      for await (const event of builder.build({ context, cache: 'ignore' }, { signal: controller.signal })) {
        if (event.type !== 'log' || event.line !== 'it sleeps now') continue;
        started = performance.now();
        controller.abort(new Error('enough'));
      }
    } catch (error) {
      if (!controller.signal.aborted) throw error;
    }
    const { builds } = await builder.list({ limit: 1 });
    for (let build = builds[0]!; build.status !== 'cancelled'; build = await builder.get(build.build_id)) {
      await sleep(20);
    }
    seconds.push((performance.now() - started) / 1000);
  }
  return seconds;
}

/** Seconds from a signal to the command, with an engine of this machine, until the step is gone. */
async function measureKilled(folder: string): Promise<number[]> {
  const directory = join(folder, 'killed');
  await mkdir(directory);
  await writeFile(join(directory, 'busybox'), await readFile('/bin/busybox'), { mode: 0o755 });
  const engine = join(folder, 'killed-engine');
  await mkdir(engine);
  const storage = join(engine, 'storage.conf');
  const places = `graphroot = "${engine}/storage"\nrunroot = "${engine}/run"\n`;
  await writeFile(storage, `[storage]\ndriver = "overlay"\n${places}`);
  const seconds: number[] = [];
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const step = `sleep ${1_000_000 + Math.floor(Math.random() * 1_000_000)}`;
    await writeFile(join(directory, 'Dockerfile'), `${DOCKERFILE}RUN ${step}\n`);
    const args = ['image', 'create', directory, '--local', '--builder', 'buildah', '-n', 'killed'];
    const env = { ...process.env, CONTAINERS_STORAGE_CONF: storage, DECANT_HOME: join(folder, 'killed-home') };
    const child = spawn(process.execPath, [PROGRAM, ...args], { env, stdio: 'ignore' });
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    const runs = async () => (await run('pgrep', ['-fx', step], { okCodes: [0, 1] })).exitCode === 0;
    for (let round = 0; !(await runs()); round++) {
      if (round > 1200 || child.exitCode !== null) throw new Error(`the step did not begin before ${signal}`);
      await sleep(50);
    }
    const started = performance.now();
    child.kill(signal);
    while (await runs()) {
      if (performance.now() - started > 60_000) throw new Error(`the step survives ${signal}`);
      await sleep(20);
    }
    seconds.push((performance.now() - started) / 1000);
    await ended;
  }
  return seconds;
}

/**
 * A build with real work, without a cache: at the service until the image is in its registry, and with the bare
 * engine until the image is an OCI layout.
 */
async function measureOverhead(builder: RemoteBuilder, folder: string, rounds: number, steps: number) {
  const work = `RUN i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; echo $i > /counted\n`;
  const files = {
    Dockerfile: `${DOCKERFILE}COPY data /data\n${work.repeat(steps)}`,
    data: randomBytes(20_000_000),
  };
  const busybox = await readFile('/bin/busybox');
  const directory = join(folder, 'overhead');
  await mkdir(directory);
  for (const [name, content] of Object.entries(files)) await writeFile(join(directory, name), content);
  await writeFile(join(directory, 'busybox'), busybox, { mode: 0o755 });
  // As the command sends a directory.
  const context = remoteContextOf(await openContext({ directory }));
  const storage = [
    ...['--root', join(folder, 'storage'), '--runroot', join(folder, 'run'), '--storage-driver', 'overlay'],
  ];
  const samples = await interleaved(
    { least: rounds, most: rounds },
    {
      ours: () =>
        wallSecondsOf(async () => {
          for await (const event of builder.build({ context, cache: 'ignore' })) void event;
        }),
      bare: () =>
        wallSecondsOf(async () => {
          const out = join(folder, 'bare');
          await rm(out, { recursive: true, force: true });
          const build = ['bud', '--isolation', 'chroot', '--layers', '--no-cache', '-t', 'localhost/bare', directory];
          await run('buildah', [...storage, ...build], { timeoutMs: TIMEOUT_MS });
          await run('buildah', [...storage, 'push', 'localhost/bare', `oci:${out}:latest`], { timeoutMs: TIMEOUT_MS });
        }),
    },
  );
  await run('buildah', [...storage, 'rmi', '--all', '--force'], { timeoutMs: TIMEOUT_MS, okCodes: [0, 1, 125] });
  return { ours: samples.median('ours'), bare: samples.median('bare') };
}

/**
 * Peak memory of the command and of the server while a large context is sent as the command does by default: as its
 * files, of which the service has none.
 */
async function measureMemory(server: BenchServer, folder: string, bytes: number) {
  const directory = join(folder, 'large');
  await mkdir(directory);
  await writeFile(join(directory, 'Dockerfile'), 'FROM scratch\nCOPY Dockerfile /\n');
  await using file = await open(join(directory, 'data'), 'w');
  // What cannot be compressed, and what can.
  const random = randomBytes(4_000_000);
  for (let at = 0; at < bytes / 20; at += random.length) await file.write(random, 0, random.length, at);
  await file.truncate(bytes);
  const child = spawn(process.execPath, [PROGRAM, 'snapshot', 'create', directory, '-n', 'large', '--ci'], {
    env: {
      ...process.env,
      DECANT_URL: server.url,
      DECANT_API_KEY: server.key,
      DECANT_HOME: join(folder, 'client'),
      TMPDIR: folder,
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (piece: string) => (text += piece));
  let client = 0;
  const deadline = performance.now() + TIMEOUT_MS;
  await using http = createNodeFetch();
  const builder = createRemoteBuilder({ baseUrl: server.url, fetch: http.fetch, token: server.key });
  // An engine is named once the service has taken, checked and stored the context, and read it again for the build.
  for (let engine: string | null | undefined; typeof engine !== 'string';) {
    client = Math.max(client, await peakMb(child));
    if (child.exitCode !== null || performance.now() > deadline) {
      child.kill('SIGKILL');
      throw new Error(`the context was not taken: ${text}`);
    }
    await sleep(200);
    engine = (await builder.list({ limit: 1 })).builds[0]?.engine;
  }
  const serverPeak = await peakMb(server.child);
  child.kill('SIGINT');
  await ended;
  return { client, server: serverPeak };
}

async function peakMb({ pid }: ChildProcess): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return (Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024) / 1e6;
}
