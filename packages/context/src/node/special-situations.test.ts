import { chmod, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, afterEach, beforeEach, expect, it } from 'vitest';

import { openContext } from './index.ts';

/**
 * What the context of a build holds in situations where engines differ or fail; the answer here is BuildKit's, and
 * where BuildKit of docker 20.10 is at odds with the rules (sockets, FIFOs), that of the rules.
 */
let base: string;
let root: string;
// What is made is for others to read.
const umask = process.umask(0o022);
afterAll(() => void process.umask(umask));
beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'decant-special-'));
  await chmod(base, 0o755);
  root = join(base, 'context');
  await mkdir(join(root, 'sub'), { recursive: true });
  for (const path of ['Dockerfile', 'a', 'b', 'c', 'sub/a', 'sub/b']) await put(path, path);
});
afterEach(async () => {
  await chmod(join(root, 'sub'), 0o755).catch(() => undefined);
  await rm(base, { recursive: true, force: true });
});

/** Root may read what it likes. The parent of the folder may be closed to others: then there is nothing to be seen. */
async function asOrdinaryUser<T>(work: () => Promise<T>): Promise<T> {
  if (process.geteuid?.() !== 0) return work();
  process.seteuid?.(65_534);
  try {
    // Not access(2), which asks for the other of the two users.
    await stat(root);
  } catch {
    process.seteuid?.(0);
    return work();
  }
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
  }
}

const put = (path: string, text: string) => writeFile(join(root, path), text);
const all = 'Dockerfile a b c sub/a sub/b';

interface Situation {
  readonly prepare: () => Promise<unknown>;
  /** Relative to the context. */
  readonly dockerfile?: string;
  readonly files: string;
}

const SITUATIONS: Readonly<Record<string, Situation>> = {
  'Dockerfile.dockerignore beats .dockerignore': {
    prepare: async () => (await put('.dockerignore', 'a\n'), put('Dockerfile.dockerignore', 'b\n')),
    files: '.dockerignore Dockerfile Dockerfile.dockerignore a c sub/a sub/b',
  },
  'that of a Dockerfile in a directory below': {
    prepare: async () => {
      await put('.dockerignore', 'a\n');
      await put('sub/X.df', 'x');
      await put('sub/X.df.dockerignore', 'b\n');
    },
    dockerfile: 'sub/X.df',
    files: '.dockerignore Dockerfile a c sub/X.df sub/X.df.dockerignore sub/a sub/b',
  },
  'an empty Dockerfile.dockerignore': {
    prepare: async () => (await put('.dockerignore', 'a\n'), put('Dockerfile.dockerignore', '')),
    files: '.dockerignore Dockerfile Dockerfile.dockerignore a b c sub/a sub/b',
  },
  '.dockerignore in a directory below means nothing': {
    prepare: () => put('sub/.dockerignore', 'a\n'),
    files: 'Dockerfile a b c sub/.dockerignore sub/a sub/b',
  },
  '.dockerignore is a link inside': {
    prepare: async () => (await put('ign', 'a\n'), symlink('ign', join(root, '.dockerignore'))),
    files: '.dockerignore Dockerfile b c ign sub/a sub/b',
  },
  '.dockerignore is a link to the outside': {
    prepare: async () => {
      await writeFile(join(base, 'ign'), 'a\n');
      await symlink(join(base, 'ign'), join(root, '.dockerignore'));
    },
    files: '.dockerignore Dockerfile a b c sub/a sub/b',
  },
  '.containerignore means nothing': {
    prepare: async () => (await put('.dockerignore', 'a\n'), put('.containerignore', 'b\n')),
    files: '.containerignore .dockerignore Dockerfile b c sub/a sub/b',
  },
  'the Dockerfile lies outside': {
    prepare: async () => (await put('.dockerignore', 'a\n'), writeFile(join(base, 'D'), 'FROM x\n')),
    dockerfile: '../D',
    files: '.dockerignore Dockerfile b c sub/a sub/b',
  },
  'the Dockerfile and its ignore file lie outside': {
    prepare: async () => {
      await put('.dockerignore', 'a\n');
      await writeFile(join(base, 'D'), 'FROM x\n');
      await writeFile(join(base, 'D.dockerignore'), 'b\n');
    },
    dockerfile: '../D',
    files: '.dockerignore Dockerfile a c sub/a sub/b',
  },
  'everything is excluded': { prepare: () => put('.dockerignore', '*\n'), files: '' },
  'the content of a directory is excluded': {
    prepare: () => put('.dockerignore', 'sub/*\n'),
    files: '.dockerignore Dockerfile a b c',
  },
  'the Dockerfile is excluded': {
    prepare: () => put('.dockerignore', 'Dockerfile\n'),
    files: '.dockerignore a b c sub/a sub/b',
  },
  'a lower-case dockerfile alone': {
    prepare: async () => (await rm(join(root, 'Dockerfile')), put('dockerfile', 'FROM x\n')),
    files: 'a b c dockerfile sub/a sub/b',
  },
  'an excluded directory that may not be read': {
    prepare: async () => (await chmod(join(root, 'sub'), 0), put('.dockerignore', 'sub\n')),
    files: '.dockerignore Dockerfile a b c',
  },
  'a link to the outside': { prepare: () => symlink('/etc/passwd', join(root, 'pw')), files: `${all} pw` },
  'a link to nothing': { prepare: () => symlink('nowhere', join(root, 'dl')), files: `${all} dl` },
};

it.each(Object.entries(SITUATIONS))('%s', async (_, { prepare, dockerfile, files }) => {
  await prepare();
  const context = await asOrdinaryUser(() =>
    openContext({
      directory: root,
      ...(dockerfile === undefined ? {} : { dockerfile: join(root, dockerfile) }),
    }),
  );
  const kept = context.entries.filter(({ type }) => type !== 'directory').map(({ path }) => path);
  expect(kept.toSorted()).toEqual(
    files
      .split(' ')
      .filter((name) => name !== '')
      .toSorted(),
  );
  // It travels apart from the files, whatever the rules say.
  expect(context.dockerfile.bytes.length).toBeGreaterThan(0);
});

it('a directory that may not be read is no empty one', async () => {
  await chmod(join(root, 'sub'), 0);
  const sees = await asOrdinaryUser(() =>
    readdir(join(root, 'sub')).then(
      () => true,
      () => false,
    ),
  );
  const opened = asOrdinaryUser(() => openContext({ directory: root }));
  if (sees) await opened;
  else await expect(opened).rejects.toMatchObject({ code: 'CONTEXT_UNREADABLE', details: { path: 'sub' } });
});
