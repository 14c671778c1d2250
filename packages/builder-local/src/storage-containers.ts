import { randomBytes } from 'node:crypto';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { errnoOf } from '@decant/core';
import { processStart } from '@decant/core/node';

/*
 * A mark names a build and the process it belongs to:
 *   decant-build-PID-START-RANDOM    START: when the process began, in clock ticks since boot; RANDOM: 8 hex digits
 * buildah and podman write it, as a secret's id, into the record of each working container:
 *   GRAPHROOT/DRIVER-containers/ID/userdata/buildah.json
 */
const MARK = /"id=(decant-build-\d+-\d+-[0-9a-f]{8}),/;
const LARGEST_RECORD = 8 * 1024 * 1024;

export async function newBuildMark(): Promise<string> {
  return `decant-build-${process.pid}-${(await processStart(process.pid)) ?? 0}-${randomBytes(4).toString('hex')}`;
}

/** Whether the process that a mark names has ended; a later process with its number does not count. */
export async function ownerIsGone(mark: string): Promise<boolean> {
  const [pid, start] = mark.split('-').slice(2);
  if (pid === undefined || start === undefined) return false;
  return (await processStart(Number(pid))) !== start;
}

/** Where a storage keeps the records of containers. */
export function recordsDirectory(graphRoot: string, driver: string): string {
  return join(graphRoot, `${driver}-containers`);
}

/** The working containers of decant's builds in a storage, with their marks. */
export async function markedContainers(graphRoot: string, driver: string): Promise<{ id: string; mark: string }[]> {
  const directory = recordsDirectory(graphRoot, driver);
  const containers: { id: string; mark: string }[] = [];
  for (const id of await namesIn(directory)) {
    if (!/^[0-9a-f]{64}$/.test(id)) continue;
    const mark = MARK.exec(await recordOf(join(directory, id, 'userdata', 'buildah.json')))?.[1];
    if (mark !== undefined) containers.push({ id, mark });
  }
  return containers;
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

async function recordOf(file: string): Promise<string> {
  try {
    await using handle = await open(file);
    const { size } = await handle.stat();
    if (size > LARGEST_RECORD) return '';
    return await handle.readFile('latin1');
  } catch (error) {
    // Another process may be removing the container.
    if (errnoOf(error) === 'ENOENT') return '';
    throw error;
  }
}
