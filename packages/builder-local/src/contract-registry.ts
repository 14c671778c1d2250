import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';

import type { Scope } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { startDockerRegistry } from '@decant/oci/testing';
import { beforeAll, describe, expect, it } from 'vitest';

import { writeBaseArchive } from './base-archive.ts';
import { build, failure, finish, linesOf, source, type Bench } from './contract-kit.ts';

const [registry, skopeo] = await Promise.all(['docker-registry', 'skopeo'].map(findProgram));
/** A registry with a password of its own, for as long as the scope lasts; returns its host. */
export const startRegistry = (scope: Scope): Promise<string> => startDockerRegistry(registry!, scope);

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
    });

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
