import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { findProgram } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { runConfinedTool } from './confined-tool.ts';

const available = process.platform === 'linux' && (await findProgram('bwrap')) !== undefined;
const isRoot = process.getuid?.() === 0;
const limits = { timeoutMs: 60_000, memoryBytes: 512 * 1024 * 1024, fileBytes: 1024 * 1024 };

describe.skipIf(!available)('[backend:bubblewrap] a confined tool', () => {
  let folder: string;
  let secret: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'jail-tool-'));
    secret = join(folder, 'input');
    await writeFile(secret, 'bytes to check', { mode: 0o600 });
  });
  afterAll(() => rm(folder, { recursive: true }));
  const sh = (script: string, extra: Partial<Parameters<typeof runConfinedTool>[2]> = {}) =>
    runConfinedTool('sh', ['-c', script], { readOnly: [], limits, ...extra });

  test('reads a private file it is given, and cannot write it', async () => {
    const read = await runConfinedTool('cat', [secret], { readOnly: [secret], limits });
    expect(read.stdout.toString()).toBe('bytes to check');
    const write = await sh(`echo broken > ${secret}`, { readOnly: [secret] });
    expect(write.exitCode).not.toBe(0);
    expect(await readFile(secret, 'utf8')).toBe('bytes to check');
  });

  test('writes where it may, up to the size limit', async () => {
    const output = join(folder, 'output');
    await writeFile(output, '');
    expect((await sh(`cat > ${output}`, { readWrite: [output], input: 'new' })).exitCode).toBe(0);
    expect(await readFile(output, 'utf8')).toBe('new');
    const big = await sh(`head -c 3000000 /dev/zero > ${output}`, { readWrite: [output] });
    expect(big.exitCode).not.toBe(0);
    expect((await readFile(output)).length).toBe(limits.fileBytes);
  });

  test('sees no other file, no network, no other process, and is not the host root', async () => {
    const script = `cat /etc/shadow ${secret} 2>&1; ls /proc/sys/net/ipv4/conf; ls -d /proc/[0-9]* | wc -l; id -u; touch /x`;
    const { stdout, exitCode } = await sh(script);
    const text = stdout.toString();
    expect(text.match(/No such file/g)?.length).toBe(2);
    expect(text).toContain('65534');
    expect(text).not.toMatch(/\b(?:eth|ens)\d|docker/);
    expect(exitCode).not.toBe(0);
    const self = await sh('grep -E "NoNewPrivs|Seccomp:|CapEff" /proc/self/status');
    expect(self.stdout.toString()).toMatch(/NoNewPrivs:\s+1/);
    expect(self.stdout.toString()).toMatch(/Seccomp:\s+2/);
    expect(self.stdout.toString()).toMatch(/CapEff:\s+0{16}/);
    const controller = new AbortController();
    const running = sh(`sleep 62.${process.pid}`, { signal: controller.signal });
    running.catch(() => undefined);
    await expect.poll(() => hostUsersOf(`62.${process.pid}`)).not.toHaveLength(0);
    if (isRoot) expect((await hostUsersOf(`62.${process.pid}`)).every((uid) => uid > 100_000)).toBe(true);
    controller.abort(new Error('seen'));
    await expect(running).rejects.toThrow('seen');
  });

  test.skipIf(!isRoot)('files of root that it was not given stay unreadable although root started it', async () => {
    // /usr is given whole; a file in it that only root may read is the test.
    const hidden = await mkdtemp('/usr/local/decant-jail-test-');
    try {
      await writeFile(join(hidden, 'f'), 'secret', { mode: 0o600 });
      const { exitCode, stdout } = await sh(`cat ${hidden}/f`);
      expect(exitCode).not.toBe(0);
      expect(stdout.toString()).toBe('');
    } finally {
      await rm(hidden, { recursive: true });
    }
  });

  test('exit codes are handed back; time limit and abort kill', async () => {
    expect((await sh('exit 9')).exitCode).toBe(9);
    expect((await sh('kill -9 $$')).exitCode).toBe(137);
    const slow = sh(`sleep 61.${process.pid}`, { limits: { ...limits, timeoutMs: 300 } });
    await expect(slow).rejects.toMatchObject({ code: 'TIMEOUT' });
    await expect(sh(`sleep 61.${process.pid}`, { signal: AbortSignal.timeout(200) })).rejects.toMatchObject({
      name: 'TimeoutError',
    });
    await expect.poll(() => hostUsersOf(`61.${process.pid}`)).toEqual([]);
  });

  test('the memory limit holds', async () => {
    const hungry = await runConfinedTool('perl', ['-e', 'my $x = "x" x 900_000_000; print length $x'], {
      readOnly: [],
      limits,
    });
    expect(hungry.exitCode).not.toBe(0);
  });

  test('missing programs and paths, and names that are not paths', async () => {
    await expect(runConfinedTool('no-such-tool', [], { readOnly: [], limits })).rejects.toMatchObject({
      code: 'PROCESS_MISSING',
    });
    await expect(sh('true', { readOnly: [join(folder, 'none')] })).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    for (const path of ['relative', '/', '/a\0b']) {
      await expect(sh('true', { readOnly: [path] })).rejects.toMatchObject({ code: 'USAGE' });
    }
  });
});

/** Host user ids of the processes that have `word` as an argument of its own, or of sleep. */
async function hostUsersOf(word: string): Promise<number[]> {
  const users: number[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (line.split('\0')[0] !== 'sleep' || line.split('\0')[1] !== word) continue;
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    const uid = /^Uid:\s+(\d+)/m.exec(status)?.[1];
    if (uid !== undefined) users.push(Number(uid));
  }
  return users;
}
