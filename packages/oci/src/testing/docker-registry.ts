import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { sleep, type Scope } from '@decant/core';

/** bcrypt of "secret". */
const HTPASSWD = 'me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n';
/** Finds what hangs; it says nothing about how fast a registry has to be. */
const START_MS = 120_000;

/**
 * Starts a docker-registry of its own on a free port of the loopback, which wants the name `me` and the password
 * `secret`, until the scope ends. Returns its host. @throws Error when it ends or does not listen within two minutes.
 */
export async function startDockerRegistry(program: string, scope: Scope): Promise<string> {
  const state = await mkdtemp(join(tmpdir(), 'decant-registry-'));
  scope.defer(() => rm(state, { recursive: true, force: true }));
  await writeFile(join(state, 'htpasswd'), HTPASSWD);
  const config = {
    version: '0.1',
    log: { level: 'info' },
    storage: { filesystem: { rootdirectory: join(state, 'data') } },
    // It takes a free port itself and says which: one that was looked for before may be somebody else's by then.
    http: { addr: '127.0.0.1:0' },
    auth: { htpasswd: { realm: 'test', path: join(state, 'htpasswd') } },
  };
  await writeFile(join(state, 'config.yml'), JSON.stringify(config));
  const child = spawn(program, ['serve', join(state, 'config.yml')], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(child, 'close');
  scope.defer(async () => {
    child.kill('SIGKILL');
    await ended.catch(() => undefined);
  });
  let log = '';
  const listening = new Promise<string>((resolve) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      // Read to its end, so that the registry never waits for its reader; kept until it listens.
      if (log.length < 65_536) log += text;
      const [, host] = /listening on (127\.0\.0\.1:\d+)/.exec(log) ?? [];
      if (host !== undefined) resolve(host);
    });
  });
  const over = ended.then(() => Promise.reject(new Error(`docker-registry ended: ${log}`)));
  over.catch(() => undefined);
  const late = new AbortController();
  const slow = sleep(START_MS, late.signal).then(() => Promise.reject(new Error(`docker-registry is silent: ${log}`)));
  slow.catch(() => undefined);
  try {
    return await Promise.race([listening, over, slow]);
  } finally {
    late.abort();
  }
}
