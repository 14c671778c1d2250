import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { writeExt4, type WriteExt4Options } from './ext4-write.ts';
import { privateFolder } from './private-folder.ts';
import type { RunTool, ToolResult } from './run-tool.ts';
import { directory, file } from './trees.fixture.ts';

let folder: Awaited<ReturnType<typeof privateFolder>>;
beforeEach(async () => {
  folder = await privateFolder();
});
afterEach(() => folder[Symbol.asyncDispose]());

const VERSION = 'debugfs 1.47.0 (5-Feb-2023)\n';
const ended = (exitCode: number, stderr = '', stdout = ''): ToolResult => ({
  exitCode,
  stdout: Buffer.from(stdout),
  stderr: Buffer.from(stderr),
});
/** What debugfs prints when it takes the inodes that are expected: two files behind lost+found. */
const TAKEN = 'debugfs: write\nAllocated inode: 12\ndebugfs: write\nAllocated inode: 13\n';
const TREE = directory({ a: file('a'), b: file('b') });

interface Answers {
  readonly mkfs?: ToolResult;
  readonly debugfs?: ToolResult;
}

/** Writes with tools that answer as told; how often each was started. */
async function write(answers: Answers, options: Partial<WriteExt4Options> = {}) {
  const started: string[] = [];
  const runTool: RunTool = async (command) => {
    started.push(command);
    return command === 'mkfs.ext4' ? (answers.mkfs ?? ended(0)) : (answers.debugfs ?? ended(0, VERSION, TAKEN));
  };
  const outFile = join(folder.path, 'image');
  const error: unknown = await writeExt4(TREE, { outFile, runTool, tempDir: folder.path, ...options }).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  const count = (command: string) => started.filter((each) => each === command).length;
  const code = (error as { code?: string } | undefined)?.code;
  const left = await readdir(folder.path);
  await rm(outFile, { force: true });
  return { error, code, left, mkfs: count('mkfs.ext4'), debugfs: count('debugfs') };
}

describe('writeExt4 and tools that fail', () => {
  it('takes the version on standard error for no complaint, and leaves the image alone', async () => {
    expect(await write({})).toEqual({ error: undefined, code: undefined, left: ['image'], mkfs: 1, debugfs: 1 });
  });

  it.each<[string, Answers, string]>([
    ['mkfs.ext4 that fails', { mkfs: ended(1, 'mkfs.ext4: Bad magic') }, 'PROCESS_FAILED'],
    ['mkfs.ext4 that was killed', { mkfs: { ...ended(0), exitCode: null } }, 'PROCESS_FAILED'],
    ['debugfs that fails', { debugfs: ended(1, VERSION, TAKEN) }, 'PROCESS_FAILED'],
    ['debugfs that complains', { debugfs: ended(0, `${VERSION}a: File not found`, TAKEN) }, 'PROCESS_FAILED'],
    ['debugfs without a version that complains', { debugfs: ended(0, 'bad', TAKEN) }, 'PROCESS_FAILED'],
    ['a full disk', { debugfs: ended(0, `${VERSION}write: No space left on device`, TAKEN) }, 'DISK_FULL'],
    ['another inode', { debugfs: ended(0, VERSION, TAKEN.replace('13', '14')) }, 'INTERNAL'],
    ['no inode', { debugfs: ended(0, VERSION) }, 'INTERNAL'],
  ])('tells %s, and leaves nothing', async (_, answers, code) => {
    expect(await write(answers)).toMatchObject({ code, left: [], mkfs: 1 });
  });

  it.each<[string, Answers]>([
    ['mkfs.ext4', { mkfs: ended(1, 'mkfs.ext4: Not enough space to build proposed filesystem') }],
    ['debugfs, of blocks', { debugfs: ended(0, `${VERSION}write: Could not allocate block in ext2 filesystem`) }],
    ['debugfs, of inodes', { debugfs: ended(0, `${VERSION}write: Could not allocate inode in ext2 filesystem`) }],
  ])('tries larger sizes when there is too little room, but not of a disk of a given size (%s)', async (_, answers) => {
    expect(await write(answers)).toMatchObject({ code: 'ROOTFS_NO_SPACE', left: [], mkfs: 8 });
    const given = await write(answers, { diskBytes: 8 * 2 ** 20 });
    expect(given).toMatchObject({ code: 'ROOTFS_NO_SPACE', left: [], mkfs: 1 });
  });

  it('tries a larger size when less is free than is asked for', async () => {
    // The superblock here has no free blocks.
    expect(await write({}, { freeBytes: 1 })).toMatchObject({ code: 'ROOTFS_NO_SPACE', left: [], mkfs: 8 });
  });

  it('leaves a file of somebody else alone', async () => {
    const outFile = join(folder.path, 'other');
    await writeFile(outFile, 'mine');
    expect((await write({}, { outFile })).error).toBeDefined();
    expect(await readFile(outFile, 'utf8')).toBe('mine');
  });
});
