import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { MIB, type DecantError } from '@decant/core';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { fixtureBottle, type FixtureBottle } from './bottle.fixture.ts';
import { createBottleClient, type BottleClient } from './client.ts';
import { creditFrame, dataFrame, messageFrame } from './frames.ts';
import { serveControl, type ControlServer } from './server.ts';

const patient = { timeout: 30_000 };
let directory: string;
let server: ControlServer | undefined;
let client: BottleClient;
let bottle: FixtureBottle;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'control-'));
});
afterEach(async () => {
  await bottle?.agent.signal('SIGKILL').catch(() => undefined);
  await server?.[Symbol.asyncDispose]();
  server = undefined;
  await rm(directory, { recursive: true, force: true });
});

async function open(agent: readonly string[] = ['sleep', '600'], more: Parameters<typeof fixtureBottle>[2] = {}) {
  bottle = await fixtureBottle(directory, agent, more);
  server = await serveControl(directory, bottle);
  client = createBottleClient('fixture', directory);
}

async function run(argv: readonly string[], input?: string) {
  using exec = await client.exec({ argv, stdin: input !== undefined });
  if (input !== undefined) exec.stdin.end(input);
  const [stdout, stderr] = await Promise.all([text(exec.stdout), text(exec.stderr)]);
  return { ...(await exec.exit), stdout, stderr };
}

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'no error',
    (error: DecantError) => error.code,
  );

describe('exec', () => {
  test('carries streams, exit codes and arguments of any bytes', async () => {
    await open();
    expect(await run(['sh', '-c', 'cat; echo "$1" >&2; exit 7', 'sh', 'ü\n"x'], 'in')).toEqual({
      exitCode: 7,
      ran: true,
      timedOut: false,
      stdout: 'in',
      stderr: 'ü\n"x\n',
    });
    expect(await run(['sh', '-c', 'kill -9 $$'])).toMatchObject({ exitCode: 137 });
    expect(await run(['cat'])).toMatchObject({ exitCode: 0, stdout: '' });
  });

  test('runs many at a time, each with its own streams', async () => {
    await open();
    const results = await Promise.all(
      Array.from({ length: 12 }, (_, i) => run(['sh', '-c', `sleep 0.0${i}; cat; exit ${i}`], `of ${i}`)),
    );
    expect(results.map(({ exitCode, stdout }) => [exitCode, stdout])).toEqual(
      Array.from({ length: 12 }, (_, i) => [i, `of ${i}`]),
    );
  });

  test('a stream that is not read stops its writer, not the other stream; nothing is lost', async () => {
    await open();
    using exec = await client.exec({ argv: ['sh', '-c', 'echo first >&2; head -c 20000000 /dev/zero; echo last >&2'] });
    const errors: string[] = [];
    exec.stderr.on('data', (piece: Buffer) => errors.push(piece.toString()));
    await expect.poll(() => errors).toEqual(['first\n']);
    await sleep(200);
    expect(errors).toEqual(['first\n']);
    let bytes = 0;
    for await (const piece of exec.stdout) bytes += (piece as Buffer).length;
    expect(bytes).toBe(20_000_000);
    expect((await exec.exit).exitCode).toBe(0);
    expect(errors.join('')).toBe('first\nlast\n');
  });

  test('input that is not read stops its sender', async () => {
    await open();
    using exec = await client.exec({ argv: ['sleep', '600'], stdin: true });
    let sent = 0;
    const source = Readable.from(
      (function* () {
        for (;;) {
          sent += 65_536;
          yield Buffer.alloc(65_536);
        }
      })(),
    );
    const feeding = pipeline(source, exec.stdin).catch(() => undefined);
    // It stands still in the end.
    for (let before = -1; sent !== before; await sleep(300)) before = sent;
    expect(sent).toBeLessThan(4 * MIB);
    exec[Symbol.dispose]();
    await feeding;
  });

  test('passes signals on, and ends the command when its time is over or its client leaves', async () => {
    await open();
    using exec = await client.exec({ argv: ['sleep', '600'] });
    await exec.signal('SIGTERM');
    expect(await exec.exit).toEqual({ exitCode: 143, ran: true, timedOut: false });
    using late = await client.exec({ argv: ['sleep', '600'], timeoutMs: 100 });
    expect(await late.exit).toEqual({ exitCode: 137, ran: true, timedOut: true });
    const mark = join(directory, 'pid');
    const left = await client.exec({ argv: ['sh', '-c', `echo $$ > ${mark}; exec sleep 600`] });
    await expect.poll(() => readFile(mark, 'utf8').catch(() => '')).toMatch(/^\d+\n$/);
    const pid = Number(await readFile(mark, 'utf8'));
    left[Symbol.dispose]();
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow('ESRCH'), patient);
  });

  test('an abort rejects with its reason; what cannot start says why', async () => {
    await open();
    const controller = new AbortController();
    using exec = await client.exec({ argv: ['sleep', '600'] }, controller.signal);
    controller.abort(new Error('enough'));
    await expect(exec.exit).rejects.toThrow('enough');
    await expect(client.exec({ argv: ['/no/such/program'] })).rejects.toThrow('ENOENT');
    expect(await codeOf(client.exec({ argv: ['a\0b'] }))).toBe('BOTTLE_PROTOCOL');
    expect(await codeOf(client.exec({ argv: ['x'.repeat(200_000)] }))).toBe('BOTTLE_PROTOCOL');
    expect(await codeOf(client.exec({ argv: Array.from({ length: 12 }, () => 'x'.repeat(120_000)) }))).toBe(
      'LIMIT_EXCEEDED',
    );
  });

  test('does not wait for what a command left behind and that says nothing', async () => {
    await open();
    const started = performance.now();
    expect(await run(['sh', '-c', 'sleep 60 & echo done'])).toMatchObject({ exitCode: 0, stdout: 'done\n' });
    expect(performance.now() - started).toBeLessThan(50_000);
  });
});

describe('the agent', () => {
  test('its output is kept and followed to its end', async () => {
    const go = join(directory, 'go');
    const until = (file: string) => `until [ -e ${file} ]; do sleep 0.02; done`;
    // Of what comes by two streams at a time nobody knows which was first.
    await open(['sh', '-c', `echo one; ${until(`${go}-on`)}; echo two >&2; ${until(go)}; echo three; exit 5`]);
    const logged = async () => {
      const now = await client.logs({});
      return [await text(now.stdout), await text(now.stderr)];
    };
    await expect.poll(logged).toEqual(['one\n', '']);
    await writeFile(`${go}-on`, '');
    await expect.poll(logged).toEqual(['one\n', 'two\n']);
    const following = await client.logs({ follow: true, tailLines: 1 });
    const attached = await client.attach({});
    await writeFile(go, '');
    void bottle.agent.exit.then(() => bottle.agent.log[Symbol.dispose]());
    expect([await text(following.stdout), await text(following.stderr)]).toEqual(['three\n', 'two\n']);
    await following.done;
    expect(await text(attached.stdout)).toBe('three\n');
    expect(await attached.exit).toEqual({ exitCode: 5, ran: true, timedOut: false });
  });

  test('any number attach, type and leave; it goes on', async () => {
    await open(['sh', '-c', 'while read -r line; do echo "got $line"; done']);
    const first = await client.attach({ stdin: true });
    const second = await client.attach({ stdin: true });
    const seen = { first: '', second: '' };
    first.stdout.on('data', (piece: Buffer) => (seen.first += piece.toString()));
    second.stdout.on('data', (piece: Buffer) => (seen.second += piece.toString()));
    first.stdin.write('a\n');
    await expect.poll(() => seen).toEqual({ first: 'got a\n', second: 'got a\n' });
    first.stdin.end();
    first[Symbol.dispose]();
    await expect.poll(() => bottle.agent.viewers).toBe(1);
    second.stdin.write('b\n');
    await expect.poll(() => seen.second).toBe('got a\ngot b\n');
    second[Symbol.dispose]();
  });

  test('a viewer that does not read is sent away; the agent never waits for it', async () => {
    await open(['sh', '-c', 'read -r go; head -c 12000000 /dev/zero; echo; echo end; exec sleep 600']);
    const slow = await client.attach({ stdin: true });
    slow.stdin.write('go\n');
    await expect(slow.exit).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
    const last = async () => text((await client.logs({ tailLines: 1 })).stdout);
    await expect.poll(async () => (await last()).slice(0, 10), { interval: 200 }).toBe('end\n');
    expect((await client.info()).slug).toBe('fixture');
  });

  test('a terminal is not promised where there is none', async () => {
    await open();
    expect(await codeOf(client.attach({ terminal: { columns: 80, rows: 24 } }))).toBe('USAGE');
  });
});

describe('files, changes, audit, stop', () => {
  test('copies by absolute paths of the host', async () => {
    await open();
    await writeFile(join(directory, 'a'), 'text');
    await client.copyIn(join(directory, 'a'), join(directory, 'b'));
    await client.copyOut(join(directory, 'b'), join(directory, 'c'));
    expect(await readFile(join(directory, 'c'), 'utf8')).toBe('text');
    expect(await codeOf(client.copyIn('relative', '/x'))).toBe('BOTTLE_PROTOCOL');
  });

  test('gives the changes and the audit; a stream that breaks fails', async () => {
    const broken = () =>
      Readable.from(
        (async function* () {
          yield Buffer.alloc(100_000);
          throw new Error('the disk broke');
        })(),
      );
    let changes: () => Readable = () => Readable.from([Buffer.from('layer')]);
    await open(['sleep', '600'], { exportChanges: () => changes() });
    const whole = await client.changes();
    expect(await text(whole.stdout)).toBe('layer');
    await whole.done;
    changes = broken;
    const cut = await client.changes();
    const read = pipeline(cut.stdout, new Writable({ write: (_bytes, _encoding, done) => done() }));
    await expect(Promise.all([read, cut.done])).rejects.toThrow('the disk broke');
    expect(await codeOf(client.audit().then(({ done, stdout }) => (stdout.resume(), done)))).toBe('NOT_FOUND');
    await writeFile(join(directory, 'audit.jsonl'), '{"a":1}\n');
    expect(await text((await client.audit()).stdout)).toBe('{"a":1}\n');
  });

  test('stop is answered when the bottle is gone; the end is told to every other call', async () => {
    await open();
    using exec = await client.exec({ argv: ['sleep', '600'] });
    await client.stop(1500);
    expect(bottle.stops).toEqual([1500]);
    server?.endCalls('it was stopped.');
    await expect(exec.exit).rejects.toMatchObject({
      code: 'BOTTLE_ENDED',
      message: expect.stringContaining('stopped') as string,
    });
  });

  test('the end of the bottle does not cut off who reads the end of its log', async () => {
    const go = join(directory, 'go');
    await open(['sh', '-c', `until [ -e ${go} ]; do sleep 0.02; done; echo last`]);
    const following = await client.logs({ follow: true });
    server?.endCalls('it was stopped.');
    await writeFile(go, '');
    void bottle.agent.delivered().then(() => bottle.agent.log[Symbol.dispose]());
    expect(await text(following.stdout)).toBe('last\n');
    await following.done;
  });

  test('a supervisor that dies ends every client with a clear message', async () => {
    await open();
    using exec = await client.exec({ argv: ['sleep', '600'] });
    const following = await client.logs({ follow: true });
    await server?.[Symbol.asyncDispose]();
    server = undefined;
    for (const end of [exec.exit, following.done]) await expect(end).rejects.toMatchObject({ code: 'BOTTLE_ENDED' });
    expect(await codeOf(client.info())).toBe('NOT_FOUND');
    expect(await codeOf(createBottleClient('other', join(directory, 'other')).info())).toBe('NOT_FOUND');
  });
});

describe('the socket', () => {
  async function raw(...pieces: Uint8Array[]): Promise<string> {
    const socket: Socket = createConnection(join(directory, 'control.sock'));
    socket.on('error', () => undefined);
    for (const piece of pieces) socket.write(piece);
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    let answer = '';
    socket.on('data', (bytes: Buffer) => (answer += bytes.toString('latin1')));
    await closed;
    return answer;
  }

  test('belongs to its user alone, also below a path that is too long for the kernel', async () => {
    const long = join(directory, 'd'.repeat(120));
    await mkdir(long, { mode: 0o700 });
    bottle = await fixtureBottle(long, ['sleep', '600']);
    server = await serveControl(long, bottle);
    expect((await stat(join(long, 'control.sock'))).mode & 0o777).toBe(0o600);
    expect((await createBottleClient('fixture', long).info()).pid).toBe(process.pid);
    await server[Symbol.asyncDispose]();
    server = undefined;
    await expect(stat(join(long, 'control.sock'))).rejects.toThrow('ENOENT');
  });

  test('takes so many connections, and those that say nothing for so long', async () => {
    await open();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    const sockets: Socket[] = [];
    for (let i = 0; i < 128; i++) {
      const socket = createConnection(join(directory, 'control.sock'));
      sockets.push(socket);
      await once(socket, 'connect');
    }
    const ended = sockets.map((socket) => once(socket.resume(), 'close'));
    // One more is closed at once.
    await raw();
    expect(sockets.filter(({ closed }) => closed)).toEqual([]);
    await vi.advanceTimersByTimeAsync(5000);
    await Promise.all(ended);
    vi.useRealTimers();
    expect((await client.info()).state).toBe('running');
  });

  test('refuses what is no call, of another version, or too much, and goes on', async () => {
    await open();
    const version = 1;
    expect(await raw(messageFrame({ version, call: 'info', more: 1 }))).toContain('BOTTLE_PROTOCOL');
    expect(await raw(messageFrame({ version: 2, call: 'info' }))).toContain('BOTTLE_PROTOCOL');
    expect(await raw(messageFrame({ version, call: 'copy-in', source: '../x', target: '/' }))).toContain(
      'BOTTLE_PROTOCOL',
    );
    expect(await raw(Buffer.from([0xff, 0xff, 0xff, 0xff, 1]))).toBe('');
    expect(await raw(Buffer.from('GET / HTTP/1.1\r\n\r\n'))).toBe('');
    expect(await raw(dataFrame(0, Buffer.from('x')))).toBe('');
    const exec = messageFrame({ version, call: 'exec', argv: ['sleep', '600'], stdin: true });
    // More input than there is credit for.
    const piece = dataFrame(0, Buffer.alloc(32_768));
    await raw(exec, ...Array.from({ length: 40 }, () => piece));
    await raw(exec, messageFrame({ type: 'signal', name: 'SIGKILL; rm' }));
    // Credit for more than was sent, and more of a stream that has ended.
    await raw(exec, creditFrame(1, 1));
    await raw(exec, dataFrame(0, Buffer.alloc(0)), dataFrame(0, Buffer.from('x')));
    expect((await client.info()).state).toBe('running');
  });
});
