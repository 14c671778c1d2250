import { appendFile, mkdir, mkdtemp, readdir, readlink, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { AgentLog, type ReadLogOptions } from './agent-log.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'agent-log-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

async function read(log: AgentLog, options?: ReadLogOptions): Promise<string> {
  let text = '';
  for await (const { stream, bytes } of log.read(options))
    text += stream === 'stdout' ? bytes.toString() : `[${bytes.toString()}]`;
  return text;
}

describe('the log of an agent', () => {
  it('keeps streams and times, and is read again from its files', async () => {
    {
      using log = AgentLog.create(directory);
      log.append('stdout', Buffer.from('a\n'), 1_700_000_000_123);
      log.append('stderr', Buffer.from('b'));
      log.append('stdout', Buffer.alloc(0));
    }
    using kept = AgentLog.open(directory);
    expect(await read(kept)).toBe('a\n[b]');
    for await (const { timeMs } of kept.read({ tailLines: 2 })) {
      expect(timeMs).toBe(1_700_000_000_123);
      break;
    }
    expect(() => AgentLog.open(join(directory, 'none'))).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
  });

  it('stays within its bound and keeps the newest', async () => {
    using log = AgentLog.create(directory, { segmentBytes: 10_000 });
    for (let i = 0; i < 1000; i++) log.append('stdout', Buffer.from(`line ${i}\n${'x'.repeat(i % 90)}\n`));
    for (const name of await readdir(directory)) {
      expect((await stat(join(directory, name))).size).toBeLessThanOrEqual(10_000);
    }
    const text = await read(log);
    expect(text.endsWith(`line 999\n${'x'.repeat(999 % 90)}\n`)).toBe(true);
    expect(text.length).toBeGreaterThan(9000);
    expect(await read(log, { tailLines: 1 })).toBe(`${'x'.repeat(999 % 90)}\n`);
  });

  it('goes on when there was no room for another file', async () => {
    using log = AgentLog.create(directory, { segmentBytes: 1000 });
    log.append('stdout', Buffer.from('x'.repeat(900)));
    // As it is after a rotation that came half-way.
    await rename(join(directory, 'agent.log'), join(directory, 'agent.log.1'));
    log.append('stdout', Buffer.from('y'.repeat(900)));
    expect(await read(log)).toBe('x'.repeat(900) + 'y'.repeat(900));
    for (const name of await readdir(directory)) expect((await stat(join(directory, name))).mode & 0o777).toBe(0o600);
  });

  it('has two files open at most, and none at its end', async () => {
    const opened = async () => {
      const names = await readdir('/proc/self/fd');
      const all = await Promise.all(names.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));
      return all.filter((path) => path.startsWith(directory)).length;
    };
    const log = AgentLog.create(directory, { segmentBytes: 1000 });
    for (let i = 0; i < 10; i++) log.append('stdout', Buffer.alloc(900));
    expect(await opened()).toBe(2);
    log[Symbol.dispose]();
    expect(await opened()).toBe(0);
  });

  it('a tail is the last lines, however they came', async () => {
    const line = fc.string({ unit: fc.constantFrom('a', 'b', '\n'), maxLength: 12 });
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(line, { maxLength: 12 }), fc.integer({ min: 0, max: 8 }), async (pieces, tailLines) => {
        const folder = join(directory, `run-${run++}`);
        await mkdir(folder);
        using log = AgentLog.create(folder);
        for (const piece of pieces) log.append('stdout', Buffer.from(piece));
        const lines = pieces.join('').split(/(?<=\n)/);
        const expected = tailLines === 0 ? '' : lines.slice(-tailLines).join('');
        expect(await read(log, { tailLines })).toBe(expected);
      }),
      { numRuns: 60 },
    );
  });

  it('is followed across its rotation to its end, and an abort ends a reader', async () => {
    const log = AgentLog.create(directory, { segmentBytes: 4000 });
    const following = read(log, { follow: true });
    let written = '';
    for (let i = 0; i < 200; i++) {
      const text = `${i} ${'y'.repeat(60)}\n`;
      written += text;
      log.append('stdout', Buffer.from(text));
      if (i % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    const controller = new AbortController();
    const aborted = read(log, { follow: true, signal: controller.signal });
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('enough');
    log[Symbol.dispose]();
    expect(written.endsWith(await following)).toBe(true);
    expect((await following).length).toBeGreaterThan(3000);
    log.append('stdout', Buffer.from('after the end'));
    expect(await read(log)).toBe('');
  });

  it('a record that its writer did not finish is none; a broken file is told', async () => {
    {
      using log = AgentLog.create(directory);
      log.append('stdout', Buffer.from('whole'));
    }
    await appendFile(join(directory, 'agent.log'), Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 65]));
    {
      using cut = AgentLog.open(directory);
      expect(await read(cut)).toBe('whole');
    }
    await writeFile(join(directory, 'agent.log'), 'this is no log of records');
    using broken = AgentLog.open(directory);
    await expect(read(broken)).rejects.toMatchObject({ code: 'BOTTLE_PROTOCOL' });
    await writeFile(join(directory, 'agent.log'), Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 65]));
    using tooLong = AgentLog.open(directory);
    await expect(read(tooLong)).rejects.toMatchObject({ code: 'BOTTLE_PROTOCOL' });
  });
});
