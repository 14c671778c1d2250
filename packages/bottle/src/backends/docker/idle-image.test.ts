import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { sleep } from '@decant/core';
import { expect, test } from 'vitest';

import { idleImage, idleProgram } from './idle-image.ts';

test('the image is the same each time, and another one for each architecture', () => {
  const [x64, arm64] = ['x64', 'arm64'].map((architecture) => {
    const { reference, archive } = idleImage(architecture);
    expect(idleImage(architecture)).toEqual({ reference, archive });
    const config = createHash('sha256').update(configOf(archive)).digest('hex');
    expect(reference).toBe(`decant-idle:${config.slice(0, 16)}`);
    return reference;
  });
  expect(x64).not.toBe(arm64);
  expect(() => idleImage('mips')).toThrow(expect.objectContaining({ code: 'JAIL_UNAVAILABLE' }));
});

/** The content of the first file of an archive. */
function configOf(archive: Uint8Array): Uint8Array {
  const size = Number.parseInt(Buffer.from(archive.subarray(124, 135)).toString('latin1'), 8);
  return archive.subarray(512, 512 + size);
}

test.skipIf(process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch))(
  'the program waits, leaves zombies to the kernel, and ends by a signal',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'decant-idle-'));
    try {
      const file = join(folder, 'idle');
      await writeFile(file, idleProgram(process.arch), { mode: 0o755 });
      const child = spawn(file, [], { stdio: 'ignore' });
      const ended = once(child, 'exit');
      await once(child, 'spawn');
      // SIGCHLD is ignored as soon as it has begun.
      const ignored = async () => /SigIgn:\t(\w+)/.exec(await readFile(`/proc/${child.pid}/status`, 'utf8'))?.[1];
      await expect.poll(ignored).toMatch(/1....$/);
      child.kill('SIGCHLD');
      await sleep(50);
      expect(child.exitCode).toBeNull();
      child.kill('SIGTERM');
      expect(await ended).toEqual([null, 'SIGTERM']);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
);
