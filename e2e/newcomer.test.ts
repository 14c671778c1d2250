import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { decant, decantJson, failure, ROOT, succeed, type DecantOptions, type MadeImage } from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { have, isRoot, tool } from './support/programs.ts';

const NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--'];
const main = join(ROOT, 'packages/cli/src/main.ts');
const [nobody = '', ...nobodyArgs] = NOBODY;
const readable =
  isRoot && (await tool(nobody, [...nobodyArgs, 'test', '-r', main], { okCodes: [0, 1] })).exitCode === 0;

describe.skipIf(!have('busybox', 'bwrap', 'fsck.erofs', 'mkfs.ext4'))(
  '[backend:erofs-utils] a first hour with decant',
  () => {
    let folder: TemporaryDirectory;
    let options: DecantOptions;
    let source: string;

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-');
      await chmod(folder.path, 0o711);
      options = { home: join(folder.path, 'home') };
      source = await smallImage(folder.path, 'first', { config: { Cmd: ['echo', 'hi'] } });
    });
    afterAll(() => folder?.[Symbol.asyncDispose]());

    test('names: list, tag, inspect, history, rm', async () => {
      expect((await decant(['image', 'ls'], options)).stderr).toContain('decant image create');
      const made = await decantJson<MadeImage>(['image', 'import', source, '--streaming', '--disk-mb', '64'], options);
      expect(made.image).toMatchObject({ name: 'first', tag: 'latest' });
      await succeed(['image', 'tag', 'first', 'team/other:v1'], options);
      const table = (await succeed(['image', 'ls'], options)).stdout.split('\n');
      expect(table[0]).toMatch(/^NAME +TAG/);
      expect(table.filter((line) => line.startsWith('team/other '))).toHaveLength(1);
      const detail = await decantJson<Record<string, unknown>>(['image', 'inspect', 'team/other:v1'], options);
      expect(detail).toMatchObject({
        id: made.image.id,
        diskBytes: 64 * 2 ** 20,
        config: { config: { Cmd: ['echo', 'hi'] } },
      });
      await succeed(['image', 'rm', 'first'], options);
      expect((await failure(['image', 'inspect', 'first'], options)).status).toBe(4);
      // Only the name is gone.
      await succeed(['image', 'verify', made.image.id], options);
      const { versions } = await decantJson<{ versions: { imageId: string | null }[] }>(
        ['image', 'history', 'first'],
        options,
      );
      expect(versions.map(({ imageId }) => imageId)).toEqual([null, made.image.id]);
      await succeed(['image', 'tag', made.image.id, 'first'], options);
    });

    test('progress as events: every line of standard error is one, and each stage ends', async () => {
      const args = ['image', 'import', source, '--streaming', '--json', '--progress', 'json'];
      const { stderr, stdout } = await succeed(args, options);
      expect(JSON.parse(stdout)).toHaveProperty('image.id');
      const events = stderr
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as { type: string; stage: string });
      const stages = (type: string) => events.filter((event) => event.type === type).map(({ stage }) => stage);
      expect(stages('stage-finished')).toEqual(expect.arrayContaining(['layers', 'layout', 'upload', 'admit']));
      expect(stages('stage-started').sort()).toEqual(stages('stage-finished').sort());
      expect((await succeed([...args.slice(0, 5), '--progress', 'none'], options)).stderr).toBe('');
    });

    test('doctor says what works and how to mend what does not', async () => {
      interface Check {
        readonly ok: boolean;
        readonly why?: string;
        readonly mend?: string;
      }
      const { sections } = await decantJson<{ sections: { title: string; checks: Check[] }[] }>(['doctor'], options);
      const checks = sections.flatMap((section) => section.checks);
      expect(checks.some(({ ok }) => ok)).toBe(true);
      for (const check of checks) if (!check.ok) expect(check.why).toMatch(/\w/);
      expect((await succeed(['doctor'], options)).stdout).toContain('yes');
    });

    test.skipIf(!readable)('without root: everything but run, which says what it needs and what works', async () => {
      const home = join(folder.path, 'of-nobody');
      await mkdir(home);
      await tool('chown', ['-R', '65534:65534', home, source.slice('oci:'.length)]);
      const asNobody: DecantOptions = { home: join(home, 'data'), through: NOBODY, env: { HOME: home } };
      const made = await decantJson<MadeImage>(['image', 'import', source, '--streaming', '-n', 'mine'], asNobody);
      const asRoot = await decantJson<{ id: string }>(['image', 'inspect', 'first'], options);
      expect(made.image.id).toBe(asRoot.id);
      const whole = await decantJson<MadeImage>(['image', 'import', source, '-n', 'whole'], asNobody);
      const wholeOfRoot = await decantJson<MadeImage>(['image', 'import', source, '-n', 'whole'], options);
      expect(whole.image.id).toBe(wholeOfRoot.image.id);
      await succeed(['image', 'verify', 'mine'], asNobody);
      await succeed(['image', 'export', 'mine', '--sparse', join(home, 'disk')], asNobody);
      await tool('fsck.erofs', [join(home, 'disk')]);
      const refused = await failure(['run', 'mine'], asNobody);
      expect(refused).toMatchObject({ status: 7, code: 'JAIL_UNAVAILABLE' });
      expect(`${refused.message} ${refused.hint}`).toMatch(/root/);
      expect(refused.hint).toMatch(/image serve|image export/);
    });
  },
);
