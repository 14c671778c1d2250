import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { sleep, type Scope } from '@decant/core';

/** bcrypt of "secret". */
const HTPASSWD = 'me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n';
const ATTEMPTS = 300;

/**
 * Starts a docker-registry of its own on a free port of the loopback, which wants the name `me` and the password
 * `secret`, until the scope ends. Returns its host. @throws Error when it does not answer within half a minute.
 */
export async function startDockerRegistry(program: string, scope: Scope): Promise<string> {
  const state = await mkdtemp(join(tmpdir(), 'decant-registry-'));
  scope.defer(() => rm(state, { recursive: true, force: true }));
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  const host = `127.0.0.1:${port}`;
  await writeFile(join(state, 'htpasswd'), HTPASSWD);
  const config = {
    version: '0.1',
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: join(state, 'data') } },
    http: { addr: host },
    auth: { htpasswd: { realm: 'test', path: join(state, 'htpasswd') } },
  };
  await writeFile(join(state, 'config.yml'), JSON.stringify(config));
  const child = spawn(program, ['serve', join(state, 'config.yml')], { stdio: 'ignore' });
  scope.defer(() => child.kill('SIGKILL'));
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const answer = await fetch(`http://${host}/v2/`).catch(() => undefined);
    if (answer !== undefined) return host;
    await sleep(100);
  }
  throw new Error('docker-registry does not answer');
}
