import { copyFile, mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { findProgram } from '../packages/core/src/node/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startDecant, type RunningDecant } from './support/decant.ts';
import { have, isRoot } from './support/programs.ts';

/**
 * Together's published SDK as it is, which `node scripts/together-sdk.ts` gets, bundles and names here: it is in no
 * registry of packages, so CI does without.
 */
const bundle = process.env['DECANT_TOGETHER_SDK'];
const SHELL = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox","--install","-s","/bin"]\n';

/** What is used of it here. */
interface TogetherSdk {
  readonly snapshots: {
    create(request: object): Promise<{ snapshotId: string; alias?: string }>;
    getById(id: string): Promise<Snapshot>;
    getByAlias(alias: string): Promise<Snapshot>;
    list(options?: object): Promise<AsyncIterable<Snapshot>>;
    alias(id: string, alias: string): Promise<void>;
    retire(id: string): Promise<Snapshot>;
  };
}
interface Snapshot {
  readonly id: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly retired_at?: string | null;
}

describe.skipIf(bundle === undefined || !isRoot || !have('busybox', 'bwrap', 'buildah', 'mkfs.ext4'))(
  "[backend:together-sdk] Together's SDK with its base URL changed",
  () => {
    let folder: TemporaryDirectory;
    let server: RunningDecant;
    let sdk: TogetherSdk;

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-together-');
      server = startDecant(['serve', '--port', '0', '--data', join(folder.path, 'server')], {
        home: join(folder.path, 'unused'),
        timeoutMs: 1_800_000,
      });
      await server.seen(/Use it with/);
      const [baseUrl = '', apiKey = ''] = server.stdout().split('\n');
      const module = (await import(pathToFileURL(bundle!).href)) as {
        TogetherSandbox: new (options: object) => TogetherSdk;
      };
      sdk = new module.TogetherSandbox({ baseUrl, apiKey });
    });
    afterAll(async () => {
      delete process.env['TOGETHER_REMOTE_ARCHITECTURE'];
      await server?.[Symbol.asyncDispose]();
      await folder?.[Symbol.asyncDispose]();
    });

    async function context(dockerfile: string): Promise<string> {
      const directory = await mkdtemp(join(folder.path, 'context-'));
      await copyFile((await findProgram('busybox'))!, join(directory, 'busybox'));
      await mkdir(join(directory, 'left-out'));
      await writeFile(join(directory, 'left-out/file'), 'x');
      await writeFile(join(directory, '.dockerignore'), 'left-out\n');
      await writeFile(join(directory, 'Dockerfile'), dockerfile);
      return directory;
    }
    const all = async (options: object) => {
      const ids: string[] = [];
      for await (const { id } of await sdk.snapshots.list(options)) ids.push(id);
      return ids;
    };

    test('builds, registers, names, lists, moves and retires', async () => {
      const events: { step: string; output: string }[] = [];
      const first = await sdk.snapshots.create({
        context: await context(`${SHELL}COPY . /src\nRUN ls /src; echo '{"done":true}'\n`),
        alias: 'team@app',
        tags: { team: 'a' },
        ttl: 3600,
        cacheKey: 'together/app',
        onProgress: (event: { step: string; output: string }) => events.push(event),
      });
      const said = events.map(({ output }) => output).join('\n');
      expect(said).toContain('{"done":true}');
      expect(said).not.toContain('left-out');
      expect(new Set(events.map(({ step }) => step))).toEqual(new Set(['prepare', 'build', 'register', 'alias']));
      expect(await sdk.snapshots.getByAlias('team@app')).toMatchObject({ id: first.snapshotId, tags: { team: 'a' } });

      const second = await sdk.snapshots.create({ context: await context(`${SHELL}RUN echo second > /it\n`) });
      await sdk.snapshots.alias(second.snapshotId, 'team@app');
      expect((await sdk.snapshots.getByAlias('team@app')).id).toBe(second.snapshotId);
      expect(await all({ limit: 1 })).toEqual([second.snapshotId, first.snapshotId]);
      expect(await all({ tags: { team: 'a' } })).toEqual([first.snapshotId]);
      expect((await sdk.snapshots.retire(first.snapshotId)).retired_at).toEqual(expect.any(String));
      expect(await all({ excludeRetired: true })).toEqual([second.snapshotId]);
      await expect(sdk.snapshots.getById(crypto.randomUUID())).rejects.toMatchObject({ status: 404 });
    });

    test('is told of what fails', async () => {
      const broken = sdk.snapshots.create({ context: await context(`${SHELL}RUN echo no; exit 7\n`) });
      await expect(broken).rejects.toThrow(/exit code 7/);
      process.env['TOGETHER_REMOTE_ARCHITECTURE'] = process.arch === 'x64' ? 'arm64' : 'amd64';
      const foreign = sdk.snapshots.create({ context: await context(SHELL) });
      await expect(foreign).rejects.toMatchObject({ status: 400 });
    });
  },
);
