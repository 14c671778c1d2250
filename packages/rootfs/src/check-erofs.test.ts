import { DecantError } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { smallImage } from './broken.fixture.ts';
import { checkErofs } from './check-erofs.ts';
import { detectFilesystem } from './detect-filesystem.ts';
import { fileAccess } from './file-access.fixture.ts';
import type { ToolResult } from './run-tool.ts';
import { memoryAccess } from './trees.fixture.ts';

const { bytes, metadataBytes } = await smallImage();
const ended = (exitCode: number, stderr = ''): ToolResult => ({
  exitCode,
  stdout: new Uint8Array(0),
  stderr: Buffer.from(stderr),
});

describe('checkErofs', () => {
  it('shows the tool the metadata and no file data', async () => {
    let seen: Uint8Array = new Uint8Array(0);
    const { tool } = await checkErofs(memoryAccess(bytes), {
      runTool: async (_command, args) => {
        await using copy = await fileAccess(args.at(-1)!);
        seen = await copy.read(0, copy.sizeBytes);
        return ended(0);
      },
    });
    expect(tool).toBe('passed');
    expect(seen.length).toBe(bytes.length);
    expect(bytes.subarray(0, metadataBytes).equals(seen.subarray(0, metadataBytes))).toBe(true);
    expect(seen.subarray(metadataBytes).every((byte) => byte === 0)).toBe(true);
  });

  it('says what the tool said', async () => {
    const check = checkErofs(memoryAccess(bytes), { runTool: () => Promise.resolve(ended(1, 'broken: somewhere')) });
    await expect(check).rejects.toMatchObject({
      code: 'ROOTFS_INVALID',
      message: expect.stringContaining('broken: somewhere') as string,
    });
  });

  it('says so when the tool is missing', async () => {
    const runTool = () => Promise.reject(new DecantError('PROCESS_MISSING', 'not installed'));
    expect((await checkErofs(memoryAccess(bytes), { runTool })).tool).toBe('missing');
  });

  it('does not start the tool for what the strict reader refuses', async () => {
    const runTool = () => Promise.reject(new Error('started'));
    const broken = memoryAccess(new Uint8Array(8192));
    await expect(checkErofs(broken, { runTool })).rejects.toMatchObject({ code: 'ROOTFS_INVALID' });
  });
});

describe('detectFilesystem', () => {
  it('tells EROFS from anything else', async () => {
    expect(await detectFilesystem(memoryAccess(bytes))).toBe('erofs');
    expect(await detectFilesystem(memoryAccess(new Uint8Array(8192)))).toBe('raw');
    expect(await detectFilesystem(memoryAccess(new Uint8Array(10)))).toBe('raw');
  });
});
