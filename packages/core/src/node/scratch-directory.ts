import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { bootId, processNamespace, processStart } from './process-start.ts';

/** A private directory that goes away with whoever opened it. */
export interface ScratchDirectory extends AsyncDisposable {
  readonly path: string;
}

/*
 * The directory is named after the process that owns it, so that making it and owning it are one step:
 *
 *     run-<boot, 8 digits>-<process namespace>-<pid>-<start time in clock ticks>-<random, 16 digits>
 */
const NAME = /^run-([0-9a-f]{8})-(\d+)-(\d+)-(\d+)-[0-9a-f]{16}$/;

/** Age after which a directory goes although it cannot be told whether its process lives, in milliseconds. */
const FORGOTTEN_MS = 7 * 24 * 60 * 60 * 1000;

/**
 * Makes a directory (mode 0700) below `parent` for this process's temporary files. Those that processes left
 * behind which are gone by now, killed or crashed, are removed first; what cannot be judged, because it belongs
 * to another process namespace of this boot, only after a week. Other names in `parent` are left alone.
 */
export async function openScratchDirectory(parent: string): Promise<ScratchDirectory> {
  await mkdir(parent, { recursive: true, mode: 0o700 });
  const boot = (await bootId()).slice(0, 8);
  const namespace = await processNamespace();
  await sweep(parent, boot, namespace);
  const started = (await processStart(process.pid)) ?? '0';
  const path = join(parent, `run-${boot}-${namespace}-${process.pid}-${started}-${randomBytes(8).toString('hex')}`);
  await mkdir(path, { mode: 0o700 });
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

async function sweep(parent: string, boot: string, namespace: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const [, itsBoot, itsNamespace, pid, started] = NAME.exec(name) ?? [];
    if (itsBoot === undefined) continue;
    const path = join(parent, name);
    const lives =
      itsBoot === boot &&
      (itsNamespace === namespace ? (await processStart(Number(pid))) === started : await isFresh(path));
    if (!lives) await rm(path, { recursive: true, force: true });
  }
}

async function isFresh(path: string): Promise<boolean> {
  const info = await stat(path).catch(() => undefined);
  return info !== undefined && Date.now() - info.mtimeMs < FORGOTTEN_MS;
}
