import { chmod, cp, mkdir, mkdtemp, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { sleep } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { expect } from 'vitest';

import type { BuilderDriver, BuildEvent, BuildRequest, BuildResult } from './driver.ts';

/** What the contract suite needs of one kind of driver. */
export interface DriverUnderTest {
  readonly driver: BuilderDriver;
  /** Network of steps that works with this engine in a test. */
  readonly network: 'default' | 'none';
  /** Containers and mounts of the engine that exist now; empty when nothing is left over. */
  leftovers(): Promise<string[]>;
  /** Where the engine keeps everything it keeps. */
  readonly storage: string;
  /** A module's source that sets `driver`, for a process of its own. */
  readonly openInChild: string;
}

export const BASE = 'decant-contract-base:latest';

/** A root filesystem of one static busybox, as an archive. */
export async function busyboxArchive(directory: string): Promise<string> {
  const root = join(directory, 'base');
  await mkdir(join(root, 'bin'), { recursive: true });
  await mkdir(join(root, 'tmp'));
  const busybox = (await findProgram('busybox'))!;
  await cp(busybox, join(root, 'bin/busybox'), { dereference: true });
  await chmod(join(root, 'bin/busybox'), 0o755);
  for (const name of ['sh', 'cat', 'echo', 'ls', 'sleep', 'date', 'cp', 'true', 'find', 'sort', 'env']) {
    await symlink('busybox', join(root, 'bin', name));
  }
  const file = join(directory, 'base.tar');
  await run('tar', ['-C', root, '--owner=0', '--group=0', '-cf', file, '.']);
  return file;
}

/** Files in memory as a source. */
export function source(dockerfile: string, files: Readonly<Record<string, string>> = {}): BuildRequest['context'] {
  return {
    dockerfile: { displayPath: 'Dockerfile', bytes: new TextEncoder().encode(dockerfile) },
    async materialize(directory) {
      for (const [path, content] of Object.entries(files)) {
        await mkdir(dirname(join(directory, path)), { recursive: true });
        await writeFile(join(directory, path), content);
      }
    },
  };
}

export async function finish(generator: AsyncGenerator<BuildEvent, BuildResult>) {
  const events: BuildEvent[] = [];
  for (;;) {
    const step = await generator.next();
    if (step.done === true) return { result: step.value, events };
    events.push(step.value);
  }
}

export const linesOf = (events: readonly BuildEvent[]) =>
  events.flatMap((event) => (event.type === 'log' ? [event.line] : []));

/** Bound of waiting for what comes or goes by itself, in milliseconds; it says nothing about speed. */
export const LIMIT_MS = 60_000;

/** Processes whose command line has the text. No program is started for it, which a busy disk would make slow. */
export async function processesWith(text: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== String(process.pid));
  const lines = pids.map(async (pid) => {
    // One that has ended by now has no command line any more.
    const bytes = await readFile(`/proc/${pid}/cmdline`).catch(() => Buffer.alloc(0));
    return `${pid} ${bytes.toString().replaceAll('\0', ' ')}`;
  });
  return (await Promise.all(lines)).filter((line) => line.includes(text));
}

export async function goneWithin(milliseconds: number, list: () => Promise<string[]>): Promise<string[]> {
  const deadline = performance.now() + milliseconds;
  for (;;) {
    const left = await list();
    if (left.length === 0 || performance.now() > deadline) return left;
    await sleep(100);
  }
}

/** One driver at work in a private directory. */
export interface Bench {
  readonly under: DriverUnderTest;
  readonly workDirectory: string;
}

export type AnyRequest = Partial<BuildRequest> & Pick<BuildRequest, 'context'>;

/** Starts a build with what works for the driver. */
export function build({ under, workDirectory }: Bench, request: AnyRequest, signal?: AbortSignal) {
  return under.driver.build({ workDirectory, network: under.network, ...request }, { signal });
}

/** What a build that should fail throws. */
export function failure(bench: Bench, request: AnyRequest): Promise<unknown> {
  return finish(build(bench, request)).then(
    () => expect.fail('the build should fail'),
    (error: unknown) => error,
  );
}

/** Steps whose results came from the cache; a base image is none. */
export const stepsCached = (events: readonly BuildEvent[]) =>
  linesOf(events).filter((line) => /^CACHED \[[^\]]*\] (?!FROM )/.test(line)).length;

/** The image as the archive holds it. */
export async function exported({ workDirectory }: Bench, result: BuildResult) {
  const directory = await mkdtemp(join(workDirectory, 'out:'));
  const { kind, file } = await result.exportImage(directory);
  expect(kind).toBe('docker-archive');
  const read = async (path: string) => (await run('tar', ['-xOf', file, path])).stdout;
  const [entry] = JSON.parse((await read('manifest.json')).toString()) as { Config: string; Layers: string[] }[];
  const layers: Buffer[] = [];
  for (const layer of entry!.Layers) {
    // A layer may be a link to another entry of the archive.
    const unpacked = join(directory, 'unpacked');
    await run('tar', ['-xf', file, '--one-top-level=unpacked'], { cwd: directory });
    layers.push(await readFile(join(unpacked, layer)));
  }
  const config = JSON.parse((await read(entry!.Config)).toString()) as {
    config: { Env: string[]; Shell?: string[] };
  };
  return { file, config, layers };
}
