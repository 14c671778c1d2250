import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readlink, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { processStart } from './process-start.ts';

/** A private directory that goes away with whoever opened it. */
export interface ScratchDirectory extends AsyncDisposable {
  readonly path: string;
}

/** Age after which a directory is removed although it cannot be told whether its process lives, in milliseconds. */
const FORGOTTEN_MS = 7 * 24 * 60 * 60 * 1000;

const NAME = /^run-(\d+)-(\d+)-(\d+)-[0-9a-f]{16}$/;

/**
 * Makes a directory (mode 0700) below `parent` for this process's temporary files. Those that processes left
 * behind which are gone by now, killed or crashed, are removed first.
 */
export async function openScratchDirectory(parent: string): Promise<ScratchDirectory> {
  await mkdir(parent, { recursive: true, mode: 0o700 });
  const namespace = await processNamespace();
  await sweep(parent, namespace);
  // The start time tells two processes apart that got the same number; the namespace, two containers.
  const name = `run-${process.pid}-${(await processStart(process.pid)) ?? 0}-${namespace}-${randomBytes(8).toString('hex')}`;
  const path = join(parent, name);
  await mkdir(path, { mode: 0o700 });
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

async function sweep(parent: string, namespace: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const [, pid, started, itsNamespace] = NAME.exec(name) ?? [];
    if (pid === undefined) continue;
    const path = join(parent, name);
    const gone =
      itsNamespace === namespace
        ? (await processStart(Number(pid))) !== started
        : Date.now() - ((await stat(path).catch(() => undefined))?.mtimeMs ?? Date.now()) > FORGOTTEN_MS;
    if (gone) await rm(path, { recursive: true, force: true });
  }
}

async function processNamespace(): Promise<string> {
  const link = await readlink('/proc/self/ns/pid').catch(() => '');
  return /\[(\d+)\]/.exec(link)?.[1] ?? '0';
}
