import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';

import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import {
  decant,
  decantJson,
  failure,
  startDecant,
  succeed,
  type DecantOptions,
  type MadeImage,
  type RunningDecant,
} from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { have, isRoot } from './support/programs.ts';

const KILLS = 8;

describe.skipIf(!isRoot || !have('busybox', 'bwrap', 'fsck.erofs', 'e2fsck'))(
  '[backend:erofs-utils] killed at any moment',
  () => {
    let folder: TemporaryDirectory;
    let sources: string[];

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-');
      const noiseBytes = 24 * 2 ** 20;
      sources = [];
      for (let i = 0; i < 3; i++) sources.push(await smallImage(folder.path, `image-${i}`, { noiseBytes }));
    });
    afterAll(() => folder?.[Symbol.asyncDispose]());

    /** Every listed image is whole, and there is nothing in between. */
    async function allWhole(options: DecantOptions): Promise<string[]> {
      const { images } = await decantJson<{ images: { name: string; id: string }[] }>(['image', 'ls'], options);
      for (const id of new Set(images.map((image) => image.id))) await succeed(['image', 'verify', id], options);
      return images.map(({ name }) => name);
    }

    /** Waits until the metadata holds a job; false when the import has ended and none was seen. */
    async function handedOver(home: string, importing: RunningDecant): Promise<boolean> {
      const over = importing.ended.then(() => true);
      while (!(await Promise.race([over, sleep(5, false)]))) {
        using database = new DatabaseSync(join(home, 'metadata.sqlite'), { readOnly: true, timeout: 30_000 });
        if (database.prepare('SELECT 1 FROM jobs').all().length > 0) return true;
      }
      return false;
    }

    /** Milliseconds that an import takes here and now, so that the kills fall into all of it. */
    async function timed(work: () => Promise<unknown>): Promise<number> {
      const started = performance.now();
      await work();
      return performance.now() - started;
    }

    test.each([['cas-streaming'], ['ext4']])('kill -9 of imports (%s)', async (format) => {
      const options: DecantOptions = {
        home: join(folder.path, `home-${format}`),
        env: { DECANT_ROOTFS_FORMAT: format },
      };
      const tookMs = await timed(() => succeed(['image', 'import', sources[0]!, '-n', 'first'], options));
      for (let kill = 0; kill < KILLS; kill++) {
        await using importing = startDecant(['image', 'import', sources[1]!, '-n', `killed-${kill}`], options);
        await sleep((tookMs * (kill + 1.5)) / (KILLS + 1));
        importing.signal('SIGKILL');
        await importing.ended;
        const names = await decantJson<{ images: { name: string }[] }>(['image', 'ls'], options);
        expect(names.images.map(({ name }) => name)).toContain('first');
      }
      const made = await decantJson<MadeImage>(['image', 'import', sources[1]!, '-n', 'second'], options);
      expect(await allWhole(options)).toEqual(expect.arrayContaining(['first', 'second']));
      expect((await decantJson<{ id: string }>(['image', 'inspect', 'second'], options)).id).toBe(made.image.id);
      expect(await readdir(join(options.home, 'scratch'))).toEqual([]);
    });

    test('kill -9 of the server during uploads and admissions', async () => {
      const data = join(folder.path, 'server');
      const key = await decantJson<{ key: string }>(['key', 'create'], { home: data });
      const serve = async (port: string) => {
        const server = startDecant(['serve', '--port', port, '--data', data, '--json'], {
          home: data,
          timeoutMs: 1_800_000,
        });
        const [line] = await server.seen(/^\{.*\}$/m);
        return { server, url: (JSON.parse(line) as { url: string }).url };
      };
      let { server, url } = await serve('0');
      const { port } = new URL(url);
      try {
        const options: DecantOptions = {
          home: join(folder.path, 'client'),
          env: { DECANT_URL: url, DECANT_API_KEY: key.key },
        };
        const take = (name: string) => ['image', 'import', sources[0]!, '--streaming', '-n', name];
        const tookMs = await timed(() =>
          succeed(['image', 'import', sources[2]!, '--streaming', '-n', 'first'], options),
        );
        for (let kill = 0; kill < 4; kill++) {
          await using importing = startDecant([...take(`cut-${kill}`), '--json'], options);
          await sleep(tookMs * (0.4 + kill * 0.15));
          server.signal('SIGKILL');
          await server.ended;
          ({ server, url } = await serve(port));
          // Whether it got over the gap or not: it ends, and says which.
          const { status, stdout } = await importing.ended;
          expect([0, 7]).toContain(status);
          expect(stdout === '').toBe(status !== 0);
        }
        await succeed(take('second'), options);
        expect(await allWhole(options)).toEqual(expect.arrayContaining(['first', 'second']));
      } finally {
        await server[Symbol.asyncDispose]();
      }
      expect(await readdir(join(data, 'scratch'))).toEqual([]);
    });

    test('an admission that its process did not finish is finished by the next server', async () => {
      let options: DecantOptions = { home: '' };
      for (let killed = false, attempt = 0; !killed; attempt++) {
        expect(attempt).toBeLessThan(10);
        options = { home: join(folder.path, `taken-over-${attempt}`) };
        await using importing = startDecant(['image', 'import', sources[0]!, '--streaming', '-n', 'late'], options);
        await importing.seen(/verifying and admitting/);
        // Only what was handed over is the server's to finish. Where this test gets too little time, it may be over by now.
        killed = await handedOver(options.home, importing);
        importing.signal('SIGKILL');
        await importing.ended;
      }
      await using server = startDecant(['serve', '--port', '0'], options);
      await server.seen(/Use it with/);
      for (let round = 0; (await decant(['image', 'inspect', 'late'], options)).status !== 0; round++) {
        expect(round).toBeLessThan(240);
        await sleep(1000);
      }
      await succeed(['image', 'verify', 'late'], options);
    });

    test('two imports and many listings on one home at once', async () => {
      const options: DecantOptions = { home: join(folder.path, 'shared') };
      const imports = Promise.all(
        sources
          .slice(0, 2)
          .map((source, i) =>
            decantJson<MadeImage>(['image', 'import', source, '--streaming', '-n', `both-${i}`], options),
          ),
      );
      for (let i = 0; i < 4; i++) await succeed(['image', 'ls'], options);
      const [one, two] = await imports;
      expect(one!.image.id).not.toBe(two!.image.id);
      // The same name at once: one after the other, and the last one stays.
      await Promise.all(
        sources.slice(0, 2).map((source) => succeed(['image', 'import', source, '--streaming', '-n', 'same'], options)),
      );
      const { versions } = await decantJson<{ versions: { imageId: string }[] }>(['image', 'history', 'same'], options);
      expect(versions.map(({ imageId }) => imageId).sort()).toEqual([one!.image.id, two!.image.id].sort());
      expect(await allWhole(options)).toEqual(['both-0', 'both-1', 'same']);
    });

    test('a name of which nothing was admitted is unknown', async () => {
      const options: DecantOptions = { home: join(folder.path, 'home-ext4') };
      expect(await failure(['image', 'inspect', 'never'], options)).toMatchObject({ status: 4, code: 'NOT_FOUND' });
    });
  },
);
