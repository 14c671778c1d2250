import { open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

/** What an empty ext4 file system of 16 GiB holds; larger ones are made anew each time. */
export const MOST_TEMPLATE_BYTES = 8 * 1024 * 1024;
const MOST_SIZES = 4;

/** What the set-up program is to do with a file: make its volume from it, or leave in it what mkfs.ext4 made. */
export interface VolumeTemplate {
  readonly use: 'template' | 'keep';
  /** Valid while this process lives. */
  readonly path: string;
  /** To be called once the program has ended or has said that the sandbox is ready. */
  done(): Promise<void>;
}

/** By size in bytes: a file without a name that holds what mkfs.ext4 makes; `none` while it is made, and when it cannot be had. */
const templates = new Map<number, FileHandle | 'none'>();

/**
 * Empty ext4 file systems of one size differ in nothing that matters to whoever uses one alone, so that making the second one is copying the
 * little that the first one holds: a thirtieth of the time of mkfs.ext4. They share their UUID and the seed of their directory hashes.
 * Nothing runs with a file system before it is kept. Undefined when this one must be made without.
 */
export async function volumeTemplate(bytes: number, folder: string): Promise<VolumeTemplate | undefined> {
  const found = templates.get(bytes);
  if (found === 'none' || (found === undefined && templates.size >= MOST_SIZES)) return undefined;
  if (found !== undefined) return { use: 'template', path: pathOf(found), done: () => Promise.resolve() };
  templates.set(bytes, 'none');
  const file = await withoutName(join(folder, 'template')).catch(() => undefined);
  if (file === undefined) return undefined;
  return {
    use: 'keep',
    path: pathOf(file),
    async done() {
      const { size } = await file.stat();
      if (size === bytes) {
        templates.set(bytes, file);
        return;
      }
      // Nothing in it: the set-up did not come so far, and the next one may.
      if (size === 0) templates.delete(bytes);
      await file.close();
    },
  };
}

async function withoutName(path: string): Promise<FileHandle> {
  const file = await open(path, 'wx+', 0o600);
  await rm(path);
  return file;
}

function pathOf({ fd }: FileHandle): string {
  return `/proc/${process.pid}/fd/${fd}`;
}
