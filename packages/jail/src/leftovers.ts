import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, readlink, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';

import { errnoOf } from '@decant/core';
import { processStart } from '@decant/core/node';

/*
 * The folder of a run is named after the process that owns it, so that making it and owning it are one step:
 *
 *     run-<boot id, 8 digits>-<process namespace>-<pid>-<start time in clock ticks>-<random>
 */
const RUN_FOLDER = /^run-([0-9a-f]{8})-(\d+)-(\d+)-(\d+)-[0-9a-f]{8}$/;

/** Makes an empty folder for one run under `stateDirectory`; it is this process's until this process ends. */
export async function makeRunFolder(stateDirectory: string): Promise<string> {
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
  const started = await processStart(process.pid);
  const random = randomBytes(4).toString('hex');
  const name = `run-${await bootId()}-${await pidNamespace()}-${process.pid}-${started ?? 0}-${random}`;
  const path = join(stateDirectory, name);
  await mkdir(path, { mode: 0o700 });
  return path;
}

/**
 * Removes what runs of ended processes left under `stateDirectory`; folders of live processes, and ones that
 * cannot be judged (another process namespace of this boot), stay. A run's mounts and processes need no
 * cleaning: the kernel ends them with the process that started the run.
 * @returns the names of the folders removed.
 */
export async function cleanUpLeftovers(stateDirectory: string): Promise<string[]> {
  let names: string[];
  try {
    names = await readdir(stateDirectory);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
  const removed: string[] = [];
  const boot = await bootId();
  const namespace = await pidNamespace();
  for (const name of names) {
    const match = RUN_FOLDER.exec(name);
    if (match === null) continue;
    const [, ownerBoot, ownerNamespace, pid, started] = match;
    if (ownerBoot === boot) {
      if (ownerNamespace !== namespace) continue;
      if ((await processStart(Number(pid))) === started) continue;
    }
    await removeRunFolder(join(stateDirectory, name));
    removed.push(name);
  }
  return removed;
}

/** Removes the folder of a run. It is empty here: what the run put there was in its own mount namespace. */
export async function removeRunFolder(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    if (errnoOf(error) !== 'ENOTEMPTY') throw error;
    await rm(path, { recursive: true, force: true });
  }
}

async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).slice(0, 8);
}

async function pidNamespace(): Promise<string> {
  return /\d+/.exec(await readlink('/proc/self/ns/pid'))?.[0] ?? '0';
}
