import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';

import { expect, it, vi } from 'vitest';

import { processStart } from './process-start.ts';

it('is the same while a process lives', async () => {
  const start = await processStart(process.pid);
  expect(start).toMatch(/^\d+$/);
  expect(await processStart(process.pid)).toBe(start);
});

it('is nothing for a process that has ended', async () => {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' });
  await once(child, 'exit');
  expect(await processStart(child.pid!)).toBeUndefined();
});

it.skipIf(process.platform !== 'linux')('is nothing for a zombie', async () => {
  // The shell starts a child, tells its number and becomes a program that never waits for it.
  const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
  try {
    const [told] = (await once(parent.stdout, 'data')) as [Buffer];
    const pid = Number(told.toString());
    await vi.waitFor(async () => expect(await readFile(`/proc/${pid}/stat`, 'utf8')).toContain(') Z '), {
      timeout: 60_000,
    });
    expect(await processStart(pid)).toBeUndefined();
  } finally {
    parent.kill('SIGKILL');
  }
});
