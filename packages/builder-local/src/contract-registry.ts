import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { sleep, type Scope } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { beforeAll, describe, expect, it } from 'vitest';

import { writeBaseArchive } from './base-archive.ts';
import { build, failure, finish, linesOf, source, type Bench } from './contract-kit.ts';

const [registry, skopeo] = await Promise.all(['docker-registry', 'skopeo'].map(findProgram));
/** bcrypt of "secret". */
const HTPASSWD = 'me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n';

/** A registry of its own on a free port, which wants the name `me` and the password `secret`. Returns its host. */
export async function startRegistry(scope: Scope): Promise<string> {
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
  const child = spawn(registry!, ['serve', join(state, 'config.yml')], { stdio: 'ignore' });
  scope.defer(() => child.kill('SIGKILL'));
  for (let attempt = 0; attempt < 300; attempt++) {
    const answer = await fetch(`http://${host}/v2/`).catch(() => undefined);
    if (answer !== undefined) return host;
    await sleep(100);
  }
  throw new Error('docker-registry does not answer');
}

export const hasRegistry = registry !== undefined && skopeo !== undefined;

export function registryContract(bench: () => Bench, scope: Scope): void {
  describe.skipIf(!hasRegistry)('[backend:docker-registry] a private base image', () => {
    let host: string;
    beforeAll(async () => {
      host = await startRegistry(scope);
      const { under, workDirectory } = bench();
      const { architecture } = under.driver.capabilities;
      const directory = await mkdtemp(join(workDirectory, 'base-'));
      const tarFile = join(workDirectory, 'base.tar');
      const archive = await writeBaseArchive({ tarFile, name: 'private/base:1', architecture }, directory);
      const to = `docker://${host}/private/base:1`;
      await run(skopeo!, [
        'copy',
        '-q',
        '--dest-tls-verify=false',
        '--dest-creds=me:secret',
        `docker-archive:${archive}`,
        to,
      ]);
    }, 60_000);

    it('cannot be had without a login or with a wrong one, and can with the right one', async () => {
      const reference = `${host}/private/base:1`;
      const context = source(`FROM ${reference}\nRUN echo from-private\n`);
      const wanted = {
        code: 'UNAUTHORIZED',
        message: expect.stringContaining(`Not authorised for ${host}`),
        details: { registry: host },
      };
      expect(await failure(bench(), { context })).toMatchObject(wanted);
      const wrong = await failure(bench(), {
        context,
        auth: { [host]: { username: 'me', password: 'wrong-password' } },
      });
      expect(wrong).toMatchObject(wanted);
      expect(JSON.stringify(wrong)).not.toContain('wrong-password');
      const auth = { [host]: { username: 'me', password: 'secret' } };
      const { events, result } = await finish(build(bench(), { context, auth }));
      expect(linesOf(events)).toContain('from-private');
      expect(result.image).toMatch(/^sha256:/);
      // The login is gone with the build.
      const left = await run(
        'grep',
        ['-rlF', Buffer.from('me:secret').toString('base64'), bench().workDirectory, bench().under.storage],
        {
          okCodes: [0, 1, 2],
        },
      );
      expect(left.stdout.toString()).toBe('');
      await bench().under.driver.removeImage(reference);
    });

    it('is refused a host that is none', async () => {
      const auth = { 'http://host/path': { username: 'a', password: 'b' } };
      expect(await failure(bench(), { context: source('FROM scratch\nCOPY a /\n', { a: '1' }), auth })).toMatchObject({
        code: 'USAGE',
      });
    });
  });
}
