import { readFileSync } from 'node:fs';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { describe, expect, it, vi } from 'vitest';

import { findProgram, run } from './run.ts';

const sh = (script: string, options = {}) => run('sh', ['-c', script], options);

/** Whether a process runs; a zombie that waits for its parent does not. */
function alive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

async function gone(pid: number): Promise<boolean> {
  for (let turn = 0; turn < 1500 && alive(pid); turn++) await sleep(20);
  return !alive(pid);
}

describe('run', () => {
  it('gives output and exit code', async () => {
    const result = await sh('printf out; printf err >&2');
    expect([result.stdout.toString(), result.stderr.toString(), result.exitCode]).toEqual(['out', 'err', 0]);
    expect((await sh('exit 3', { okCodes: [0, 3] })).exitCode).toBe(3);
  });

  it('reports a failure with the last lines', async () => {
    await expect(sh('for i in 1 2 3; do echo line $i >&2; done; exit 9')).rejects.toMatchObject({
      code: 'PROCESS_FAILED',
      message: expect.stringContaining('status 9: line 1\nline 2\nline 3'),
      details: { exitCode: 9 },
    });
    await expect(sh('kill -KILL $$')).rejects.toThrow('was ended by SIGKILL');
  });

  it('tells a missing program from one that cannot be started', async () => {
    await expect(run('no-such-program-of-decant', [])).rejects.toMatchObject({ code: 'PROCESS_MISSING' });
    await expect(run('/etc/passwd', [])).rejects.toMatchObject({ code: 'PROCESS_FAILED' });
  });

  it('feeds standard input from a text and from a stream', async () => {
    expect((await run('cat', [], { input: 'text' })).stdout.toString()).toBe('text');
    async function* pieces() {
      for (let i = 0; i < 200; i++) yield Buffer.alloc(10_000, i);
    }
    const { stdout } = await run('wc', ['-c'], { input: pieces() });
    expect(Number(stdout.toString())).toBe(2_000_000);
    expect((await run('cat', [])).stdout).toHaveLength(0);
  });

  it('leaves standard output to a file, and still keeps standard error and judges the exit code', async () => {
    const path = join(await mkdtemp(join(tmpdir(), 'decant-run-')), 'out');
    try {
      await using file = await open(path, 'w+');
      const lines: string[] = [];
      const result = await sh('printf out; echo err >&2; exit 3', {
        stdoutFile: file.fd,
        okCodes: [3],
        onLine: (line: string) => lines.push(line),
      });
      expect([result.stdout.toString(), result.stderr.toString(), lines]).toEqual(['', 'err\n', ['err']]);
      expect(await readFile(path, 'utf8')).toBe('out');
      await expect(sh('echo no >&2; exit 4', { stdoutFile: file.fd })).rejects.toThrow('status 4: no');
    } finally {
      await rm(dirname(path), { recursive: true });
    }
  });

  it('judges a child that stops reading early by its exit code', async () => {
    const result = await run('true', [], { input: Buffer.alloc(4 * 1024 * 1024) });
    expect(result.exitCode).toBe(0);
  });

  it('gives lines as they come, also across pieces and without a last line end', async () => {
    const lines: string[] = [];
    await sh("printf 'a\\nb'; sleep 0.05; printf 'c\\r\\n\\n\\303'; sleep 0.05; printf '\\244'", {
      onLine: (line: string) => lines.push(line),
    });
    expect(lines).toEqual(['a', 'bc', '', 'ä']);
  });

  it('keeps the end of long output and cuts long lines', async () => {
    const lengths: number[] = [];
    const { stdout } = await sh("head -c 200000 /dev/zero | tr '\\0' x; printf END", {
      keepBytes: 1000,
      onLine: (line: string) => lengths.push(line.length),
    });
    expect(stdout).toHaveLength(1000);
    expect(stdout.toString().endsWith('END')).toBe(true);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(64 * 1024);
    expect(lengths.reduce((sum, length) => sum + length, 0)).toBe(200_003);
  });

  it('ends the whole process group on abort and rethrows the reason', async () => {
    const controller = new AbortController();
    const reason = new Error('stop');
    let grandchild: number | undefined;
    const running = sh('sleep 60 & echo $!; wait', {
      signal: controller.signal,
      onLine: (line: string) => {
        grandchild = Number(line);
        controller.abort(reason);
      },
    });
    await expect(running).rejects.toBe(reason);
    expect(await gone(grandchild!)).toBe(true);
  });

  it('kills a group that does not heed TERM', async () => {
    let pid = 0;
    const controller = new AbortController();
    const reason = new Error('enough');
    const running = sh("trap '' TERM; echo $$; while :; do sleep 0.05; done", {
      signal: controller.signal,
      killAfterMs: 150,
      onLine: (line: string) => {
        pid = Number(line);
        controller.abort(reason);
      },
    });
    await expect(running).rejects.toBe(reason);
    expect(await gone(pid)).toBe(true);
  });

  it('ends what takes too long', async () => {
    await expect(sh('sleep 600', { timeoutMs: 100 })).rejects.toMatchObject({ code: 'TIMEOUT' });
  });

  it('takes its time limit back from what has ended', async () => {
    using timers = vi.spyOn(globalThis, 'setTimeout');
    using cleared = vi.spyOn(globalThis, 'clearTimeout');
    // Of no other timer here.
    const timeoutMs = 61_235;
    await sh('true', { timeoutMs });
    const ours = timers.mock.results[timers.mock.calls.findIndex(([, ms]) => ms === timeoutMs)];
    expect(cleared.mock.calls.flat()).toContain(ours!.value);
  });

  it('starts nothing with a signal that is aborted already', async () => {
    await expect(run('no-such-program-of-decant', [], { signal: AbortSignal.abort('no') })).rejects.toBe('no');
  });
});

describe('findProgram', () => {
  it('finds programs, and no folders or files that cannot be run', async () => {
    expect(await findProgram('sh')).toMatch(/^\/.*\/sh$/);
    expect(await findProgram('no-such-program-of-decant')).toBeUndefined();
    expect(await findProgram('.')).toBeUndefined();
  });
});
