import { spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { Semaphore, sleep } from '@decant/core';

import { collectBottles } from '../../stack/gc.ts';
import type { FaultPoint } from '../../stack/fault-points.ts';
import { backendNamed, openRealBottle, outputOf } from './real-bottle.ts';

/*
 * Kills bottles at every acquisition, collects what they left, and prints a report: node killed-bottles-worker.ts DIRECTORY
 * IMAGE [BACKEND [KINDS]], of acquisitions whose kind matches KINDS where it is given. It must be a child subreaper, so that what outlives its parents becomes its child and is seen.
 */

const [directory = '', image = '', backendName, kinds = ''] = process.argv.slice(2);
const backend = backendNamed(backendName);
const GONE_WITHIN_MS = 60_000;

/** Processes that were left to this one, but for those that have ended. */
async function leftChildren(known: ReadonlySet<number>): Promise<string[]> {
  const left: string[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name) || known.has(Number(name))) continue;
    const text = await readFile(`/proc/${name}/stat`, 'latin1').catch(() => '');
    const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    if (Number(parent) === process.pid && state !== 'Z' && state !== 'X') left.push(text.slice(0, 60));
  }
  return left;
}

async function childrenNow(): Promise<Set<number>> {
  const found = await leftChildren(new Set());
  return new Set(found.map((text) => Number.parseInt(text, 10)));
}

async function mounts(): Promise<number> {
  return (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').filter((line) => line.includes(directory)).length;
}

const points: FaultPoint[] = [];
const live = await openRealBottle(
  directory,
  image,
  { name: 'live', backend: backend.name },
  { faultHook: (point) => void points.push(point) },
);
const ofLive = await childrenNow();
const wanted = new RegExp(`^(acquire|acquired):.*(${kinds})`);
const killAt = points.filter((point) => wanted.test(point));
const worker = fileURLToPath(new URL('killed-bottle-worker.ts', import.meta.url));
const atOnce = new Semaphore(3);
const outcomes = await Promise.all(
  killAt.map((point) =>
    atOnce.run(
      () =>
        new Promise<string>((resolve) => {
          const child = spawn(process.execPath, [...process.execArgv, worker, directory, image, point, backend.name], {
            stdio: ['ignore', 'ignore', 'pipe'],
          });
          let text = '';
          child.stderr.on('data', (data: Buffer) => (text += data.toString()));
          // Not 'close': what is left of it may hold its output.
          child.once('exit', (code, signal) => resolve(`${point} ${signal ?? `${code}: ${text}`}`));
        }),
    ),
  ),
);
const before = (await readdir(directory)).filter((name) => name.endsWith('.jsonl')).length;
const started = performance.now();
const first = await collectBottles({ directory, backends: [backend] });
const collectMs = performance.now() - started;
const second = await collectBottles({ directory, backends: [backend] });
const deadline = performance.now() + GONE_WITHIN_MS;
while ((await leftChildren(ofLive)).length > 0 && performance.now() < deadline) await sleep(20);
const report = {
  points: killAt,
  outcomes,
  before,
  collectMs,
  collected: first.collected.length,
  running: first.running,
  failed: [...first.failed, ...second.failed].map(({ slug, error }) => `${slug}: ${String(error)}`),
  second: second.collected.length,
  processes: await leftChildren(ofLive),
  mounts: await mounts(),
  entries: (await readdir(directory)).sort(),
  live: await outputOf(live, ['echo', 'still here']),
};
await live.stop();
process.stdout.write(`${JSON.stringify({ ...report, after: await readdir(directory) })}\n`);
