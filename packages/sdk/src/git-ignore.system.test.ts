import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { readDirectoryTree } from '@decant/context/node';
import { findProgram, run } from '@decant/core/node';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { gitIgnoreRules } from './git-ignore.ts';

const git = await findProgram('git');

describe.skipIf(git === undefined)('[backend:git] .gitignore', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'decant-git-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const list = async (root: string) =>
    (await readDirectoryTree(root, { rules: gitIgnoreRules })).entries
      .filter(({ type, path }) => type !== 'directory' && !path.startsWith('.git/'))
      .map(({ path }) => path)
      .sort();

  it('selects what git itself selects', async () => {
    const word = fc.constantFrom('a', 'b', '*', '**', '?', 'd', 'a*', '*.c', '[ab]', 'x y', '.h', 'A');
    const pattern = fc
      .tuple(fc.boolean(), fc.boolean(), fc.array(word, { minLength: 1, maxLength: 3 }), fc.boolean())
      .map(
        ([not, anchored, words, isDirectory]) =>
          `${not ? '!' : ''}${anchored ? '/' : ''}${words.join('/')}${isDirectory ? '/' : ''}`,
      );
    const rules = fc.array(pattern, { maxLength: 4 }).map((lines) => `# rules\n${lines.join('\n')}\n`);
    let count = 0;
    await fc.assert(
      fc.asyncProperty(rules, rules, async (outer, inner) => {
        const root = join(folder, `repository-${count++}`);
        for (const name of ['d/d', 'd/a', 'a']) await mkdir(join(root, name), { recursive: true });
        for (const name of ['b', 'x y', '.h', 'a/b', 'a/m.c', 'd/b', 'd/a/b', 'd/d/m.c', 'd/d/x y', 'm.c']) {
          await writeFile(join(root, name), name);
        }
        await writeFile(join(root, '.gitignore'), outer);
        await writeFile(join(root, 'd/.gitignore'), inner);
        const env = { ...process.env, GIT_CONFIG_GLOBAL: '/dev/null', GIT_CONFIG_SYSTEM: '/dev/null' };
        await run(git!, ['init', '-q', root], { env });
        const args = ['-C', root, 'ls-files', '-z', '--others', '--cached', '--exclude-standard'];
        const { stdout } = await run(git!, args, { env });
        const selected = stdout
          .toString()
          .split('\0')
          .filter((name) => name !== '');
        expect(await list(root)).toEqual(selected.sort());
      }),
      {
        numRuns: 40,
        // A deeper file keeps the directory that one above leaves out: what is in it is selected by itself.
        examples: [
          ['a\n', '!a\n'],
          ['x y\nA\n', ''],
        ],
      },
    );
  });
});
