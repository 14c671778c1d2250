import { createHash } from 'node:crypto';
import { access, mkdir, mkdtemp, open, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { MIB } from '@decant/core';
import { run } from '@decant/core/node';

import { debianBase } from '../packages/testkit/src/debian-base.ts';
import { ROOT } from '../scripts/workspace.ts';

/** Two versions of one disk image: the second has a few npm packages more and one file edited. */
export interface BenchInput {
  readonly first: string;
  readonly second: string;
  readonly description: string;
}

/** Programs, libraries, headers and scripts: what images of services are made of. About 1 GB with npm's packages. */
const DEBIAN_PACKAGES = ['ca-certificates', 'g++', 'git', 'golang-go', 'nodejs', 'python3-matplotlib', 'python3-scipy'];
const NPM_PACKAGES = ['typescript@5.9.3', 'webpack@5.102.1', 'react-dom@19.2.0', 'date-fns@4.1.0', 'rxjs@7.8.2'];
const NPM_PACKAGES_OF_SECOND = ['lodash@4.17.21', 'express@5.1.0', 'core-js@3.46.0'];
const RECIPE = 1;
/** Bytes of data that the first image must have at least. */
const SMALLEST_CONTENT = 1e9;
const TOOL_TIMEOUT_MS = 15 * 60_000;

/**
 * Raw ext4 images of a root filesystem of Debian and npm packages, at least 1 GB of data in 2.5 GiB, by `mkfs.ext4 -d`.
 * Made once and kept in `.cache/bench`. Needs mmdebstrap, mkfs.ext4 and npm.
 */
export async function rootfsInput(): Promise<BenchInput> {
  const facts = JSON.stringify([RECIPE, DEBIAN_PACKAGES, NPM_PACKAGES, NPM_PACKAGES_OF_SECOND]);
  const key = createHash('sha256').update(facts).digest('hex').slice(0, 12);
  const folder = join(ROOT, '.cache/bench', key);
  const input = {
    first: join(folder, 'first.ext4'),
    second: join(folder, 'second.ext4'),
    description: `ext4 image of Debian (${DEBIAN_PACKAGES.join(', ')}) and npm (${NPM_PACKAGES.join(', ')}) packages`,
  };
  if (await exists(input.second)) return input;
  await mkdir(folder, { recursive: true });
  const archive = await debianBase({ cacheFolder: folder, include: DEBIAN_PACKAGES });
  const work = await mkdtemp(join(folder, 'work-'));
  try {
    const tree = join(work, 'tree');
    const app = join(tree, 'srv/app');
    await mkdir(tree);
    await run('tar', ['-C', tree, '--exclude=./dev/*', '-xf', archive], { timeoutMs: TOOL_TIMEOUT_MS });
    await mkdir(app, { recursive: true });
    await writeFile(join(app, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true }));
    await install(app, NPM_PACKAGES);
    await makeExt4(tree, join(work, 'first'));
    await install(app, NPM_PACKAGES_OF_SECOND);
    await writeFile(join(tree, 'etc/motd'), 'the second version\n');
    await makeExt4(tree, join(work, 'second'));
    const { blocks } = await stat(join(work, 'first'));
    if (blocks * 512 < SMALLEST_CONTENT) throw new Error(`the image has only ${blocks * 512} bytes of data`);
    await rename(join(work, 'first'), input.first);
    await rename(join(work, 'second'), input.second);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return input;
}

async function install(folder: string, packages: readonly string[]): Promise<void> {
  const flags = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
  await run('npm', ['install', ...flags, ...packages], { cwd: folder, timeoutMs: TOOL_TIMEOUT_MS });
}

async function makeExt4(tree: string, file: string): Promise<void> {
  await writeFile(file, '');
  await truncate(file, 2560 * MIB);
  const options = ['-q', '-F', '-m', '0', '-O', '^has_journal', '-U', 'a3f5c1d2-0b5e-4c8e-9a62-2f7b0d6c9e11'];
  await run('mkfs.ext4', [...options, '-E', 'hash_seed=a3f5c1d2-0b5e-4c8e-9a62-2f7b0d6c9e11', '-d', tree, file], {
    env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`, E2FSPROGS_FAKE_TIME: '1767225600' },
    timeoutMs: TOOL_TIMEOUT_MS,
  });
}

/** The same pair from programs and sources that are at hand: for a run that only shows that everything works. */
export async function shortInput(folder: string): Promise<BenchInput> {
  const first = join(folder, 'first.raw');
  const second = join(folder, 'second.raw');
  const program = await readFile(process.execPath);
  const sources = await readFile(join(ROOT, 'pnpm-lock.yaml'));
  for (const [file, shift] of [
    [first, 0],
    [second, 1],
  ] as const) {
    await using handle = await open(file, 'w');
    // The second has a few pages more in the middle, and everything after them shifted.
    await handle.write(program, 0, 32 * MIB, 0);
    await handle.write(sources, 0, sources.length, 33 * MIB);
    await handle.write(program, 32 * MIB, 48 * MIB, 36 * MIB + shift * 5 * 4096);
    await handle.truncate(96 * MIB);
  }
  return { first, second, description: 'parts of the node program and a lock file, 96 MiB with holes' };
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
