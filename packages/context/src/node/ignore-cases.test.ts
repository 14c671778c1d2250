import { mkdtemp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { isDecantError } from '@decant/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { parseIgnoreFile } from '../ignore/ignore-rules.ts';
import { openContext } from './open-context.ts';

interface Case {
  readonly id: string;
  readonly note: string;
  readonly ignoreFile?: string | null;
  readonly ignoreFileGenerator?: { readonly repeat: string; readonly times: number; readonly then: string };
  readonly parsedPatterns?: readonly string[];
  readonly expectError: boolean;
  readonly checks?: readonly { readonly path: string; readonly excluded: boolean }[];
  readonly excludedFiles?: readonly string[];
  readonly notEmittedDirs?: readonly string[];
}

interface CaseFile {
  readonly tree: readonly { readonly path: string; readonly type: 'file' | 'dir' | 'symlink' }[];
  readonly symlinks: Readonly<Record<string, string>>;
  readonly cases: readonly Case[];
}

const vectors = new URL('../../vectors/dockerignore.json', import.meta.url);
const { tree, symlinks, cases } = JSON.parse(await readFile(vectors, 'utf8')) as CaseFile;

describe('ignore files over a real tree, as BuildKit filters it', () => {
  let root: string;

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'decant-context-'));
    for (const { path, type } of tree) {
      if (type === 'dir') await mkdir(join(root, path), { recursive: true });
      else if (type === 'symlink') await symlink(symlinks[path]!, join(root, path));
      else await writeFile(join(root, path), path);
    }
  });

  afterAll(async () => {
    await rm(root, { recursive: true });
  });

  it.each(cases.map((one) => [one.id, one] as const))('%s', async (_, one) => {
    const generator = one.ignoreFileGenerator;
    const text = generator === undefined ? one.ignoreFile : generator.repeat.repeat(generator.times) + generator.then;
    const ignoreFile = join(root, '.dockerignore');
    // Without rules the file itself is part of the tree all the same.
    await writeFile(ignoreFile, text ?? '');

    if (one.expectError) {
      const failure = await openContext({ directory: root }).catch((error: unknown) => error);
      expect(isDecantError(failure, 'IGNORE_FILE_INVALID')).toBe(true);
      expect(failure).toMatchObject({ details: { file: '.dockerignore', line: expect.any(Number) } });
      return;
    }
    const { entries } = await openContext({ directory: root });
    const kept = new Set(entries.map(({ path }) => path));
    const missing = (types: readonly string[]) =>
      tree.filter(({ path, type }) => types.includes(type) && !kept.has(path)).map(({ path }) => path);
    expect(missing(['file', 'symlink'])).toEqual([...one.excludedFiles!].sort());
    expect(missing(['dir'])).toEqual([...one.notEmittedDirs!].sort());

    const rules = parseIgnoreFile(Buffer.from(text ?? ''), '.dockerignore');
    for (const { path, excluded } of one.checks ?? []) {
      if (tree.find((file) => file.path === path)?.type !== 'dir')
        expect([path, rules.excludes(path)]).toEqual([path, excluded]);
    }
    if (one.parsedPatterns !== undefined) expect(rules.patterns).toEqual(one.parsedPatterns);
  });
});
