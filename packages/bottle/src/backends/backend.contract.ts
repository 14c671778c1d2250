import { createHash, randomBytes } from 'node:crypto';

import { sleep } from '@decant/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { Backend, Machine } from './backend.ts';
import { copyContract } from './copy.contract.ts';
import {
  eventually,
  hostIds,
  MIB,
  openBackendFixture,
  ownSeconds,
  processesWith,
  ran,
  Screen,
  shell,
  textOf,
  type BackendFixture,
} from './guest-tools.contract.ts';
import { hostileContract } from './hostile.contract.ts';
import { storageContract } from './storage.contract.ts';

/** What every backend must do; `createBackend` gives one that can be used here. */
export function backendContract(
  createBackend: (options?: { readonly hiddenFolders: readonly string[] }) => Backend,
): void {
  let fixture: BackendFixture;
  let machine: Machine;
  beforeAll(async () => {
    fixture = await openBackendFixture(createBackend());
    machine = await fixture.open();
  });
  afterAll(async () => {
    await fixture[Symbol.asyncDispose]();
    expect(fixture.claims).toEqual([]);
  });
  const get = () => ({ fixture, machine });

  describe('commands', () => commandContract(get));
  describe('terminals', () => terminalContract(get));
  describe('the end', () => endContract(get));
  describe('copies', () => copyContract(get));
  describe('storage', () => storageContract(get, createBackend));
  describe('hostile commands', () => hostileContract(get));
}

type Get = () => { readonly fixture: BackendFixture; readonly machine: Machine };

function commandContract(get: Get): void {
  test('streams, environment, host name, directory and user of the image', async () => {
    const script = 'cat; echo "$GREETING $EXTRA $HOME"; hostname; pwd; id; echo oops >&2; exit 7';
    const result = await ran(get().machine, ['sh', '-c', script], { input: 'in and ', env: { EXTRA: 'more' } });
    expect(result).toEqual({
      exitCode: 7,
      ran: true,
      timedOut: false,
      out: 'in and good day more /home/app\nbottle\n/job\nuid=1000(app) gid=1001(app) groups=2000(extra)\n',
      err: 'oops\n',
    });
  });

  test('users and directories of a request', async () => {
    const { machine } = get();
    const who = async (user: string) => (await ran(machine, ['id'], { user })).out.trim();
    expect(await who('root')).toBe('uid=0(root) gid=0(root)');
    expect(await who('1000:0')).toBe('uid=1000(app) gid=0(root)');
    expect(await who('4321')).toBe('uid=4321 gid=0(root)');
    await expect(ran(machine, ['id'], { user: 'nobody-of-that-name' })).rejects.toThrow();
    expect((await ran(machine, ['pwd'], { workingDir: '/old/inner' })).out).toBe('/old/inner\n');
    await expect(ran(machine, ['pwd'], { workingDir: '/no/such/folder' })).rejects.toThrow(
      /working directory|no such/i,
    );
    await shell(machine, 'echo late:x:3000:3001::/job:/bin/sh >> /etc/passwd');
    expect(await who('late')).toBe('uid=3000(late) gid=3001');
  });

  test('exit codes: of the command, of signals, of what cannot be run', async () => {
    const { machine } = get();
    const code = async (...argv: string[]) => (await ran(machine, argv)).exitCode;
    expect(await code('true')).toBe(0);
    expect(await code('sh', '-c', 'exit 255')).toBe(255);
    expect(await code('sh', '-c', 'kill -9 $$')).toBe(137);
    expect(await code('no-such-command')).toBe(127);
    expect(await code('/no/such/command')).toBe(127);
    expect(await code('/etc/passwd')).toBe(126);
    expect(await code('/job')).toBe(126);
    expect(await code('/bad-interpreter')).toBe(126);
  });

  test('what a command and an environment cannot be', async () => {
    const { machine } = get();
    for (const request of [
      { argv: [] },
      { argv: [''] },
      { argv: ['a\0b'] },
      { argv: ['true'], env: { 'A=B': '' } },
      { argv: ['true'], env: { '': 'x' } },
      { argv: ['true'], workingDir: 'relative' },
      { argv: ['true'], timeoutMs: 0 },
      { argv: ['true'], terminal: { columns: 0, rows: 24 } },
    ]) {
      await expect(machine.exec(request)).rejects.toMatchObject({ code: 'USAGE' });
    }
    const odd = { argv: ['sh', '-c', 'printf "%s|" "$@"; printf %s "$V"', '--', '--rm', '-it', '$(id)', 'ü\n', ' '] };
    expect((await ran(machine, odd.argv, { env: { V: 'a=b\n"c' } })).out).toBe('--rm|-it|$(id)|ü\n| |a=b\n"c');
  });

  test('megabytes both ways, byte for byte', async () => {
    const input = randomBytes(6 * MIB);
    const running = await get().machine.exec({ argv: ['cat'] });
    const hash = createHash('sha256');
    const reading = (async () => {
      for await (const piece of running.stdout) hash.update(piece as Buffer);
    })();
    running.stdin.end(input);
    await Promise.all([reading, running.exit]);
    expect(hash.digest('hex')).toBe(createHash('sha256').update(input).digest('hex'));
  });

  test('a reader that waits makes the command wait', async () => {
    const { machine } = get();
    const running = await machine.exec({ argv: ['sh', '-c', 'yes | head -c 20000000; touch /tmp/written'] });
    await sleep(300);
    expect((await ran(machine, ['ls', '/tmp/written'])).exitCode).not.toBe(0);
    expect((await textOf(running.stdout)).length).toBe(20_000_000);
    expect((await running.exit).exitCode).toBe(0);
  });

  test('a reader that goes away, and a command that does not read', async () => {
    const { machine } = get();
    const running = await machine.exec({ argv: ['yes'] });
    (running.stdout as NodeJS.ReadableStream & { destroy(): void }).destroy();
    expect((await running.exit).exitCode).toBe(141);
    const deaf = await machine.exec({ argv: ['true'] });
    deaf.stdin.write(Buffer.alloc(4 * MIB));
    expect((await deaf.exit).exitCode).toBe(0);
  });

  test('standard streams can be opened by name', async () => {
    const script = 'cat /dev/stdin > /dev/stdout; echo err > /dev/stderr; echo tee | tee /dev/stderr';
    expect(await ran(get().machine, ['sh', '-c', script], { input: 'in\n' })).toMatchObject({
      exitCode: 0,
      out: 'in\ntee\n',
      err: 'err\ntee\n',
    });
  });

  test('many commands at a time', async () => {
    const { machine } = get();
    const results = await Promise.all(
      Array.from({ length: 12 }, (_, i) => ran(machine, ['sh', '-c', `cat; exit ${i}`], { input: `number ${i}` })),
    );
    expect(results.map(({ exitCode, out }) => `${exitCode} ${out}`)).toEqual(
      Array.from({ length: 12 }, (_, i) => `${i} number ${i}`),
    );
  });

  test('a signal reaches the process group', async () => {
    const { machine } = get();
    const script =
      'trap "echo caught; exit 3" TERM; (trap "echo child; exit" TERM; sleep 0.05; echo up; while :; do sleep 0.05; done) & while :; do sleep 0.05; done';
    const running = await machine.exec({ argv: ['sh', '-c', script] });
    const screen = new Screen(running);
    await eventually(() => screen.text).toContain('up');
    await running.signal('SIGTERM');
    expect((await running.exit).exitCode).toBe(3);
    await eventually(() => screen.text).toContain('child');
    expect(screen.text).toContain('caught');
    // What has ended is left alone.
    await running.signal('SIGKILL');
  });

  test('a time limit and an abort end the command and its session', async () => {
    const { machine } = get();
    const [limit, abortion] = [ownSeconds(71), ownSeconds(72)];
    const script = `sleep ${limit} & setsid true; (sleep ${limit} &) ; trap "" TERM; sleep ${limit}`;
    const limited = await machine.exec({ argv: ['sh', '-c', script], timeoutMs: 500 });
    expect(await limited.exit).toEqual({ exitCode: 137, ran: true, timedOut: true });
    await eventually(() => processesWith(limit)).toEqual([]);
    // A limit that is over before the command could begin is one as well.
    const shortest = await machine.exec({ argv: ['sleep', limit], timeoutMs: 1 });
    expect(await shortest.exit).toEqual({ exitCode: 137, ran: true, timedOut: true });
    await eventually(() => processesWith(limit)).toEqual([]);
    const abort = new AbortController();
    const aborted = await machine.exec({
      argv: ['sh', '-c', `sleep ${abortion} & sleep ${abortion}`],
      signal: abort.signal,
    });
    await eventually(async () => (await processesWith(abortion)).length).toBe(2);
    abort.abort(new Error('enough'));
    await expect(aborted.exit).rejects.toThrow('enough');
    await eventually(() => processesWith(abortion)).toEqual([]);
    await expect(machine.exec({ argv: ['true'], signal: abort.signal })).rejects.toThrow('enough');
  });

  test('what is left in the background goes on, and is taken up when its parent ends', async () => {
    const { machine } = get();
    const seconds = ownSeconds(73);
    await ran(machine, ['sh', '-c', `sleep ${seconds} >/dev/null 2>&1 </dev/null & (exit 0) & exit 0`]);
    // Until it is there, its shell's other child may be named like it.
    await eventually(async () => (await processesWith(seconds)).length).toBe(1);
    await eventually(async () => (await shell(machine, 'ps -o stat')).out).not.toContain('Z');
    await shell(
      machine,
      `for p in /proc/[0-9]*; do grep -q ${seconds} $p/cmdline 2>/dev/null && kill -9 \${p#/proc/}; done; true`,
    );
    await eventually(() => processesWith(seconds)).toEqual([]);
  });

  test('no process inside has an id of the host', async () => {
    const running = await get().machine.exec({ argv: ['sleep', ownSeconds(74)], user: 'root' });
    await eventually(async () => (await processesWith(ownSeconds(74))).length).toBe(1);
    const [pid] = await processesWith(ownSeconds(74));
    const ids = await hostIds(pid!);
    expect(ids).toHaveLength(8);
    expect(Math.min(...ids)).toBeGreaterThanOrEqual(100_000);
    await running.signal('SIGKILL');
    expect((await running.exit).exitCode).toBe(137);
  });
}

function terminalContract(get: Get): void {
  const terminal = { columns: 97, rows: 31 };

  test('is the controlling terminal, of the size asked for, and can be resized', async () => {
    const { machine } = get();
    const script =
      'tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo "$TERM"; trap "stty size; exit 5" WINCH; echo ready; while :; do sleep 0.05; done';
    const running = await machine.exec({ argv: ['sh', '-c', script], terminal });
    const screen = new Screen(running);
    await eventually(() => screen.text).toContain('ready');
    expect(screen.text).toMatch(/^\/dev\/pts\/\d+\r\n31 97\r\nall\r\nxterm\r\n/);
    await running.resize({ columns: 120, rows: 40 });
    expect((await running.exit).exitCode).toBe(5);
    await eventually(() => screen.text).toContain('40 120');
    await expect(running.resize({ columns: -1, rows: 1 })).rejects.toMatchObject({ code: 'USAGE' });
  });

  test('keys: Ctrl-C interrupts, Ctrl-D ends the input', async () => {
    const { machine } = get();
    const reading = await machine.exec({ argv: ['cat'], terminal });
    const screen = new Screen(reading);
    reading.stdin.write('hello\n');
    await eventually(() => screen.text).toBe('hello\r\nhello\r\n');
    reading.stdin.write('\u0004');
    expect((await reading.exit).exitCode).toBe(0);
    const waiting = await machine.exec({ argv: ['sleep', ownSeconds(75)], terminal });
    waiting.stdin.write('\u0003');
    expect((await waiting.exit).exitCode).toBe(130);
  });

  test('all that was written arrives, also just before the end', async () => {
    const running = await get().machine.exec({ argv: ['seq', '20000'], terminal });
    const lines = (await textOf(running.stdout)).split('\r\n');
    expect(lines).toHaveLength(20_001);
    expect(lines[19_999]).toBe('20000');
  });

  test('is hung up when its reader is gone', async () => {
    const { machine } = get();
    const running = await machine.exec({ argv: ['sh', '-c', 'while :; do echo on; sleep 0.02; done'], terminal });
    (running.stdout as NodeJS.ReadableStream & { destroy(): void }).destroy();
    expect((await running.exit).exitCode).toBe(129);
  });

  test('job control works in it', async () => {
    const running = await get().machine.exec({ argv: ['sh', '-i'], terminal });
    const screen = new Screen(running);
    const seconds = ownSeconds(76);
    running.stdin.write(`sleep ${seconds}\n`);
    await eventually(async () => (await processesWith(seconds)).length).toBe(1);
    running.stdin.write('\u001a');
    await eventually(() => screen.text).toContain('Stopped');
    running.stdin.write('kill -9 %1\n');
    await eventually(() => processesWith(seconds)).toEqual([]);
    running.stdin.write('wait; exit 4\n');
    expect((await running.exit).exitCode).toBe(4);
  });
}

function endContract(get: Get): void {
  test('everything in a machine ends with it', async () => {
    const machine = await get().fixture.open();
    const seconds = ownSeconds(81);
    await ran(machine, ['sh', '-c', `setsid sleep ${seconds} </dev/null >/dev/null 2>&1 &`]);
    const running = await machine.exec({ argv: ['sleep', seconds] });
    await eventually(async () => (await processesWith(seconds)).length).toBe(2);
    await machine[Symbol.asyncDispose]();
    expect(await processesWith(seconds)).toEqual([]);
    expect((await running.exit).exitCode).toBe(137);
    expect((await machine.ended).reason).not.toBe('');
    await expect(machine.exec({ argv: ['true'] })).rejects.toMatchObject({ name: 'DecantError' });
    await machine[Symbol.asyncDispose]();
  });
}
