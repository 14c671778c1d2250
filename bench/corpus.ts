import { createHash } from 'node:crypto';
import { access, appendFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { run } from '@decant/core/node';

import { debianBase } from '../packages/testkit/src/debian-base.ts';
import { ROOT } from '../scripts/workspace.ts';

/** A root filesystem as a tar archive. */
export interface CorpusTree {
  readonly name: string;
  readonly archive: string;
}

/** How two trees of the corpus are related. */
export type Relation =
  /** A version of an image and its next: a package is added, or several are exchanged. */
  | 'version'
  /** A language's runtime is added, which is a large part of the image. */
  | 'addition'
  /** One file was edited. */
  | 'edit'
  /** The same content, unpacked and packed again elsewhere. */
  | 'same'
  /** Built again from nothing, with the times of that day. */
  | 'rebuild'
  /** A version and its next of what is a part of images and none by itself. */
  | 'part';

export interface CorpusPair {
  readonly name: string;
  readonly relation: Relation;
  readonly before: CorpusTree;
  readonly after: CorpusTree;
}

export interface Corpus {
  readonly description: string;
  readonly trees: readonly CorpusTree[];
  readonly pairs: readonly CorpusPair[];
}

const RECIPE = 1;
const PYTHON = ['python3'];
const MIXTURE = ['ca-certificates', 'g++', 'git', 'nodejs', 'python3-pip', 'python3-scipy'];
const NPM_PACKAGES = [
  ...['@babel/core@7.28.4', '@babel/preset-env@7.28.3', 'core-js@3.46.0', 'date-fns@4.1.0', 'eslint@9.38.0'],
  ...['express@5.1.0', 'jest@30.2.0', 'react-dom@19.2.0', 'rxjs@7.8.2', 'typescript@5.9.3', 'webpack@5.101.3'],
];
const NPM_BUMP = 'webpack@5.102.1';
/** Times of the npm trees and of what was changed in them: the day before and the day after, seconds since 1970. */
const FIRST_DAY = 1_767_225_600;
const SECOND_DAY = FIRST_DAY + 86_400;
/** In the edited tree this file is two pages longer, as when a function is added. */
const EDITED_FILE = 'usr/lib/python3.11/json/decoder.py';
const TOOL_TIMEOUT_MS = 20 * 60_000;

/**
 * Root filesystems and their next versions: Debian minbase by mmdebstrap, the same with python and with node, with one
 * package more, with one file edited, unpacked and packed again, and built again from nothing; a tree of npm packages and
 * the same with one of them bumped, alone and on the tree with node, as an application is shipped; and a mixture of all of
 * it, about 1 GB, with its next version.
 * Made once and kept in `.cache/corpus`. Needs mmdebstrap, GNU tar, npm and root.
 */
export async function rootfsCorpus(): Promise<Corpus> {
  const facts = JSON.stringify([RECIPE, PYTHON, MIXTURE, NPM_PACKAGES, NPM_BUMP]);
  const key = createHash('sha256').update(facts).digest('hex').slice(0, 12);
  const folder = join(ROOT, '.cache/corpus', key);
  await mkdir(folder, { recursive: true });
  const tree = async (name: string, make: (file: string) => Promise<void>): Promise<CorpusTree> => {
    const archive = join(folder, `${name}.tar`);
    if (!(await exists(archive))) {
      const partial = `${archive}.${process.pid}`;
      try {
        await make(partial);
        await rename(partial, archive);
      } finally {
        await rm(partial, { force: true });
      }
    }
    return { name, archive };
  };
  const debian = (name: string, include: readonly string[]) =>
    tree(name, async (file) => rename(await debianBase({ cacheFolder: folder, include }), file));
  /** From another tree: unpacked into a new folder, changed, and packed in the order in which that folder lists its names. */
  const from = (name: string, source: CorpusTree, change: (root: string) => Promise<void>) =>
    tree(name, (file) =>
      withFolder(folder, async (root) => {
        await unpackTree(source.archive, root);
        await change(root);
        await packTree(root, file);
      }),
    );

  const minbase = await debian('minbase', []);
  const python = await debian('python', PYTHON);
  const node = await debian('node', ['nodejs']);
  const packageMore = await debian('python-curl', [...PYTHON, 'curl']);
  const edited = await from('python-edited', python, async (root) => {
    const lines = Array.from({ length: 120 }, (_, i) => `\n\ndef added_${i}(value):\n    return value + ${i}\n`);
    await appendFile(join(root, EDITED_FILE), lines.join(''));
  });
  const again = await from('python-again', python, async () => undefined);
  const rebuilt = await tree('python-rebuilt', (file) => rebuild(PYTHON, file));
  const modules = await tree('modules', (file) =>
    withFolder(folder, async (root) => {
      await install(root, NPM_PACKAGES);
      await setTimes(root, FIRST_DAY);
      await packTree(root, file);
    }),
  );
  const bump = async (root: string) => {
    await install(root, [NPM_BUMP]);
    await setTimes(root, SECOND_DAY, FIRST_DAY);
  };
  const bumped = await from('modules-bumped', modules, bump);
  const app = await from('app', node, (root) => unpackTree(modules.archive, root));
  const appBumped = await from('app-bumped', node, (root) => unpackTree(bumped.archive, root));
  const mixtureBase = await debian('mixture-base', MIXTURE);
  const mixture = await from('mixture', mixtureBase, (root) => unpackTree(modules.archive, root));
  const nextBase = await debian('mixture-base-next', [...MIXTURE, 'vim']);
  const mixtureNext = await from('mixture-next', nextBase, (root) => unpackTree(bumped.archive, root));

  const pair = (name: string, relation: Relation, before: CorpusTree, after: CorpusTree): CorpusPair => ({
    ...{ name, relation, before, after },
  });
  return {
    description: `Debian trees (python3; nodejs; ${MIXTURE.join(', ')}) and npm packages (${NPM_PACKAGES.join(', ')})`,
    trees: [
      ...[minbase, python, node, packageMore, edited, again, rebuilt],
      ...[modules, bumped, app, appBumped, mixture, mixtureNext],
    ],
    pairs: [
      pair('with python', 'addition', minbase, python),
      pair('with node', 'addition', minbase, node),
      pair('one package more', 'version', python, packageMore),
      pair('one dependency bumped', 'version', app, appBumped),
      pair('one dependency bumped, modules alone', 'part', modules, bumped),
      pair('mixture, next version', 'version', mixture, mixtureNext),
      pair('one file edited', 'edit', python, edited),
      pair('extracted again', 'same', python, again),
      pair('rebuilt independently', 'rebuild', python, rebuilt),
    ],
  };
}

/** Unpacks an archive of the corpus with everything it holds, over what is there. */
export async function unpackTree(archive: string, folder: string): Promise<void> {
  const flags = ['--numeric-owner', '--xattrs', '--xattrs-include=*'];
  await run('tar', ['-C', folder, ...flags, '-xpf', archive], { timeoutMs: TOOL_TIMEOUT_MS });
}

async function packTree(folder: string, archive: string): Promise<void> {
  const flags = ['--numeric-owner', '--xattrs', '--xattrs-include=*', '--format=posix', '--sort=none'];
  const times = '--pax-option=delete=atime,delete=ctime';
  await run('tar', ['-C', folder, ...flags, times, '-cf', archive, '.'], { timeoutMs: TOOL_TIMEOUT_MS });
}

/** As debianBase does it, without its cache and with today's times. */
async function rebuild(include: readonly string[], file: string): Promise<void> {
  const hook = '--customize-hook=rm -f "$1"/var/cache/apt/*.bin';
  const release = await run('sh', ['-c', '. /etc/os-release; printf %s "$VERSION_CODENAME"'], { timeoutMs: 10_000 });
  const args = ['--variant=minbase', '--format=tar', '--quiet', `--include=${include.join(',')}`, hook];
  await run('mmdebstrap', [...args, release.stdout.toString('utf8'), file], { timeoutMs: TOOL_TIMEOUT_MS });
}

async function install(root: string, packages: readonly string[]): Promise<void> {
  const app = join(root, 'srv/app');
  await mkdir(app, { recursive: true });
  const description = join(app, 'package.json');
  if (!(await exists(description))) await writeFile(description, '{"name":"app","version":"1.0.0","private":true}\n');
  const flags = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error', '--save-exact'];
  await run('npm', ['install', ...flags, ...packages], { cwd: app, timeoutMs: TOOL_TIMEOUT_MS });
}

/** Gives everything below, or what is newer than a day, one time, so that a tree does not depend on when it was made. */
async function setTimes(root: string, seconds: number, newerThan?: number): Promise<void> {
  const newer = newerThan === undefined ? [] : ['-newermt', `@${newerThan}`];
  const touch = ['-exec', 'touch', '--no-dereference', '--date', `@${seconds}`, '{}', '+'];
  await run('find', [root, ...newer, ...touch], { timeoutMs: TOOL_TIMEOUT_MS });
}

async function withFolder(parent: string, use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(parent, 'work-'));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
