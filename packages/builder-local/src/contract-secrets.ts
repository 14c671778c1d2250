import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { run } from '@decant/core/node';
import { describe, expect, it } from 'vitest';

import { BASE, build, exported, failure, finish, linesOf, source, type Bench } from './contract-kit.ts';

/** Files below a directory that hold the text, found byte by byte. */
async function filesWith(text: string, directory: string): Promise<string[]> {
  const { stdout } = await run('grep', ['-rlaF', '--', text, directory], { okCodes: [0, 1, 2] });
  return stdout
    .toString()
    .split('\n')
    .filter((name) => name !== '');
}

export function secretContract(bench: () => Bench): void {
  describe('secrets', () => {
    const text = `FROM ${BASE}\nRUN --mount=type=secret,id=tok --mount=type=secret,id=env cat /run/secrets/tok /run/secrets/env > /tmp/x; ls -s /tmp/x; cat /tmp/x; echo > /tmp/x\n`;

    it('are mounted for the step alone and found nowhere afterwards, or refused', async () => {
      const { under, workDirectory } = bench();
      // A value that no compression can hide: it is looked for as it is.
      const [inFile, inEnvironment] = [
        `file-${randomBytes(12).toString('hex')}`,
        `env-${randomBytes(12).toString('hex')}`,
      ];
      const file = join(workDirectory, 'secret');
      await writeFile(file, `${inFile}\n`, { mode: 0o600 });
      const secrets = [
        { id: 'tok', file },
        { id: 'env', value: inEnvironment },
      ];
      if (!under.driver.capabilities.secrets) {
        expect(await failure(bench(), { context: source(text), secrets })).toMatchObject({
          code: 'DOCKERFILE_UNSUPPORTED',
        });
        expect(await failure(bench(), { context: source(`FROM ${BASE}\n`), secrets })).toMatchObject({ code: 'USAGE' });
        return;
      }
      expect(await failure(bench(), { context: source(text) })).toMatchObject({
        code: 'USAGE',
        details: { id: 'tok' },
      });
      const { result, events } = await finish(build(bench(), { context: source(text), secrets }));
      // It was there, and what the step said of it is hidden.
      expect(linesOf(events).filter((line) => line.includes('***'))).toHaveLength(2);
      expect(linesOf(events)).toContainEqual(expect.stringMatching(/[1-9]\d* \/tmp\/x/));
      const failed = await failure(bench(), {
        context: source(text.replace('echo > /tmp/x', 'echo > /tmp/x; cat /run/secrets/tok >&2; exit 3')),
        secrets,
      });
      expect(failed).toMatchObject({ code: 'BUILD_STEP_FAILED', details: { exitCode: 3 } });
      const { file: archive, layers, config } = await exported(bench(), result);
      await run('rm', [file]);
      for (const value of [inFile, inEnvironment]) {
        expect(JSON.stringify([config, events, failed])).not.toContain(value);
        for (const layer of layers) expect(layer.includes(value)).toBe(false);
        expect(await filesWith(value, under.storage)).toEqual([]);
        expect(await filesWith(value, workDirectory)).toEqual([]);
        expect(await filesWith(value, archive)).toEqual([]);
      }
      await result[Symbol.asyncDispose]();
    });

    it('that cannot be given are refused before any work', async () => {
      if (!bench().under.driver.capabilities.secrets) return;
      const context = { ...source(`FROM ${BASE}\n`), materialize: () => expect.fail('nothing should be laid out') };
      const refused = [
        [{ id: 'a', file: '/nonexistent/secret' }],
        [{ id: 'a,src=/etc/shadow', value: 'x' }],
        [{ id: 'a', value: 'x\0y' }],
        [
          { id: 'a', value: 'x' },
          { id: 'a', value: 'y' },
        ],
      ];
      for (const secrets of refused)
        expect(await failure(bench(), { context, secrets })).toMatchObject({ code: 'USAGE' });
    });
  });
}
