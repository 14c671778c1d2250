import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';

import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import type { Exec } from '../backends/backend.ts';
import { AgentLog } from './agent-log.ts';
import { AgentSession } from './agent-session.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'agent-session-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

it('shows what there is no room to log, and logs again when there is', async () => {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const none = async () => undefined;
  const exec: Exec = {
    ...{ stdin: new PassThrough(), stdout, stderr, signal: none, resize: none },
    exit: Promise.resolve({ exitCode: 0, ran: true, timedOut: false }),
  };
  using log = AgentLog.create(directory);
  vi.spyOn(log, 'append').mockImplementationOnce(() => {
    throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
  });
  const session = new AgentSession(exec, { terminal: false, log });
  const seen = { stdout: new PassThrough(), stderr: new PassThrough() };
  session.view(seen);
  stdout.write('lost\n');
  await expect.poll(() => seen.stdout.readableLength).toBe(5);
  stdout.end('kept\n');
  stderr.end();
  await session.delivered();
  expect(await text(seen.stdout.end())).toBe('lost\nkept\n');
  const logged = [];
  for await (const { bytes } of log.read()) logged.push(bytes.toString());
  expect(logged).toEqual(['kept\n']);
});
