import { createHash, randomInt, randomUUID } from 'node:crypto';
import { link, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { DecantError, errnoOf } from '@decant/core';
import { processStart } from '@decant/core/node';
import { createVolume } from '@decant/jail';
import { z } from 'zod';

/** A disk of its own for one build, with ids that no other build has. */
export interface BuildVolume {
  readonly file: string;
  readonly firstHostId: number;
  /** Whether it holds layers of an earlier build. */
  readonly reused: boolean;
  /** Keeps it as the cache of its key, or throws it away. */
  release(keep: boolean): Promise<void>;
}

export interface AcquireOptions {
  /** What builds that may share layers have in common; undefined for a volume that is thrown away. */
  readonly cacheOf: readonly [namespace: string, cacheKey: string] | undefined;
  /** Throws away the layers that are there. */
  readonly fresh: boolean;
  readonly sizeBytes: number;
  readonly signal?: AbortSignal | undefined;
}

/*
 * A volume is SLOT.ext4 with SLOT.json beside it. The slot says which ids it has: FIRST_HOST_ID + SLOT * 65,536. Making
 * SLOT.ext4 takes the slot. SLOT.lock says which process uses it; that process being gone frees it.
 */
const FIRST_HOST_ID = 0x5000_0000;
const IDS = 65_536;
const SLOTS = 4096;
const TRIES = 64;
const NAME = /^(\d{1,4})\.ext4$/;

const recordSchema = z.object({
  /** SHA-256 of namespace and cache key; null for a volume without a cache. */
  key: z.string().nullable(),
  sizeBytes: z.number(),
  usedAt: z.number(),
});
type VolumeRecord = z.infer<typeof recordSchema>;

/** Volumes of builds in one directory; several processes may use it. */
export class VolumeStore {
  readonly #directory: string;
  readonly #cacheBytes: number;
  /** Slots that this process uses now. */
  readonly #used = new Set<number>();

  /** @param options.cacheBytes most bytes, as allocated, that are kept as caches. */
  constructor(options: { readonly directory: string; readonly cacheBytes: number }) {
    this.#directory = options.directory;
    this.#cacheBytes = options.cacheBytes;
  }

  /** Removes what processes that are gone left: their volumes were in use, so nobody knows what is in them. */
  async recover(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    for (const slot of await this.#slots()) {
      const owner = await this.#owner(slot);
      const isCache = owner === undefined && (await this.#record(slot))?.key != null;
      if (!isCache && !(await isAlive(owner))) await this.#remove(slot);
    }
  }

  async acquire(options: AcquireOptions): Promise<BuildVolume> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const key = options.cacheOf === undefined ? null : keyOf(options.cacheOf);
    const found = key === null ? undefined : await this.#take(key);
    if (found !== undefined) {
      const usable = !options.fresh && found.record.sizeBytes === options.sizeBytes;
      if (usable) return this.#volume(found.slot, found.record, true);
      await this.#remove(found.slot);
    }
    const record = { key, sizeBytes: options.sizeBytes, usedAt: Date.now() };
    return this.#volume(await this.#create(record, options), record, false);
  }

  #volume(slot: number, record: VolumeRecord, reused: boolean): BuildVolume {
    return {
      file: this.#path(slot, 'ext4'),
      firstHostId: FIRST_HOST_ID + slot * IDS,
      reused,
      release: async (keep) => {
        const allocated = await this.#allocated(slot);
        // Layers of long ago are never removed one by one: a cache that fills half of the disk starts anew.
        if (!keep || record.key === null || allocated > record.sizeBytes / 2) {
          await this.#remove(slot);
          return;
        }
        await this.#writeRecord(slot, { ...record, usedAt: Date.now() });
        await this.#unlock(slot);
        await this.#evict();
      },
    };
  }

  /** The cache of the key, locked; undefined when there is none that is free. */
  async #take(key: string): Promise<{ slot: number; record: VolumeRecord } | undefined> {
    for (const slot of await this.#slots()) {
      if ((await this.#record(slot))?.key !== key || !(await this.#lock(slot))) continue;
      // Whoever takes the lock of a process that is gone throws its volume away.
      const record = await this.#record(slot);
      if (record?.key === key) return { slot, record };
      await this.#unlock(slot);
    }
    return undefined;
  }

  async #create(record: VolumeRecord, { sizeBytes, signal }: AcquireOptions): Promise<number> {
    for (let i = 0; i < TRIES; i++) {
      const slot = randomInt(SLOTS);
      if (!(await this.#lock(slot))) continue;
      const ownerId = FIRST_HOST_ID + slot * IDS;
      try {
        await createVolume(this.#path(slot, 'ext4'), { sizeBytes, ownerId, signal });
        await this.#writeRecord(slot, record);
        return slot;
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') {
          await this.#remove(slot);
          throw error;
        }
        await this.#unlock(slot);
      }
    }
    throw new DecantError('INTERNAL', `There was no free slot for a volume in ${TRIES} tries.`);
  }

  async #evict(): Promise<void> {
    const caches: { slot: number; usedAt: number; bytes: number }[] = [];
    for (const slot of await this.#slots()) {
      const record = await this.#record(slot);
      if (record?.key == null || (await this.#owner(slot)) !== undefined) continue;
      caches.push({ slot, usedAt: record.usedAt, bytes: await this.#allocated(slot) });
    }
    caches.sort((a, b) => b.usedAt - a.usedAt);
    let bytes = 0;
    for (const cache of caches) {
      bytes += cache.bytes;
      if (bytes > this.#cacheBytes && (await this.#lock(cache.slot))) await this.#remove(cache.slot);
    }
  }

  async #slots(): Promise<number[]> {
    const names = await readdir(this.#directory);
    return names.flatMap((name) => {
      const slot = NAME.exec(name)?.[1];
      return slot === undefined ? [] : [Number(slot)];
    });
  }

  async #lock(slot: number): Promise<boolean> {
    if (this.#used.has(slot)) return false;
    const file = this.#path(slot, 'lock');
    const text = `${process.pid} ${(await processStart(process.pid)) ?? 0}`;
    // Written before it has its name: a lock without its text would be taken for one of a process that is gone.
    const written = `${file}.${randomUUID()}`;
    await writeFile(written, text, { flag: 'wx', mode: 0o600 });
    try {
      for (let i = 0; i < 2; i++) {
        try {
          await link(written, file);
          this.#used.add(slot);
          return true;
        } catch (error) {
          if (errnoOf(error) !== 'EEXIST') throw error;
        }
        if (await isAlive(await this.#owner(slot))) return false;
        // A volume whose user was killed is not to be trusted; whoever renames the lock removes both.
        const stale = `${file}.${process.pid}.stale`;
        const mine = await rename(file, stale).then(
          () => true,
          () => false,
        );
        if (!mine) return false;
        await rm(this.#path(slot, 'ext4'), { force: true });
        await rm(this.#path(slot, 'json'), { force: true });
        await rm(stale, { force: true });
      }
      return false;
    } finally {
      await rm(written, { force: true });
    }
  }

  async #unlock(slot: number): Promise<void> {
    await rm(this.#path(slot, 'lock'), { force: true });
    this.#used.delete(slot);
  }

  async #remove(slot: number): Promise<void> {
    await rm(this.#path(slot, 'ext4'), { force: true });
    await rm(this.#path(slot, 'json'), { force: true });
    await this.#unlock(slot);
  }

  /** The lock's text; undefined when there is none. */
  async #owner(slot: number): Promise<string | undefined> {
    return readFile(this.#path(slot, 'lock'), 'utf8').catch(() => undefined);
  }

  async #record(slot: number): Promise<VolumeRecord | undefined> {
    try {
      return recordSchema.safeParse(JSON.parse(await readFile(this.#path(slot, 'json'), 'utf8'))).data;
    } catch {
      return undefined;
    }
  }

  async #writeRecord(slot: number, record: VolumeRecord): Promise<void> {
    const file = this.#path(slot, 'json');
    await writeFile(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
    await rename(`${file}.new`, file);
  }

  async #allocated(slot: number): Promise<number> {
    const { blocks } = await stat(this.#path(slot, 'ext4'));
    return blocks * 512;
  }

  #path(slot: number, suffix: string): string {
    return join(this.#directory, `${slot}.${suffix}`);
  }
}

/** Whether the process that a lock names lives: one with its number that began later does not count. */
async function isAlive(owner: string | undefined): Promise<boolean> {
  const [pid = '', start] = (owner ?? '').split(' ');
  return /^\d+$/.test(pid) && (await processStart(Number(pid))) === start;
}

function keyOf([namespace, cacheKey]: readonly [string, string]): string {
  return createHash('sha256').update(`${namespace}\0${cacheKey}`).digest('hex');
}
