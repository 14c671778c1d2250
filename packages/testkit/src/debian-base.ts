import { createHash } from 'node:crypto';
import { access, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';

export interface DebianBaseOptions {
  /** Folder that keeps the archive between runs, such as `.cache/` of the repository. */
  readonly cacheFolder: string;
  /** Packages besides Debian's minimal base. */
  readonly include?: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

const RECIPE = 1;
const BUILD_TIMEOUT_MS = 10 * 60_000;

/**
 * The path of a tar archive with the root filesystem of a minimal Debian (about 150 MB), made by mmdebstrap from this
 * machine's own package sources. Made once for each set of sources and packages, which takes about half a minute.
 * @throws Error when this is no Debian system or mmdebstrap is not installed; PROCESS_FAILED when it fails.
 */
export async function debianBase(options: DebianBaseOptions): Promise<string> {
  const { cacheFolder, include = [], signal } = options;
  if ((await findProgram('mmdebstrap')) === undefined) throw new Error('mmdebstrap is not installed');
  const release = await readFile('/etc/os-release', 'utf8');
  const suite = /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(release)?.[1];
  if (suite === undefined || !/^ID="?debian"?$/m.test(release)) throw new Error('this is not a Debian system');
  const facts = [RECIPE, suite, process.arch, await aptSources(), [...include].sort()];
  const key = createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 16);
  const file = join(cacheFolder, `debian-${suite}-${key}.tar`);
  if (await exists(file)) return file;
  await mkdir(cacheFolder, { recursive: true });
  const partial = join(cacheFolder, `partial-${process.pid}.tar`);
  try {
    await run(
      'mmdebstrap',
      [
        ...['--variant=minbase', '--format=tar', '--quiet'],
        ...(include.length === 0 ? [] : [`--include=${include.join(',')}`]),
        // apt's cache of the package lists is large and different each time.
        '--customize-hook=rm -f "$1"/var/cache/apt/*.bin',
        ...[suite, partial],
      ],
      { env: { ...process.env, SOURCE_DATE_EPOCH: '1767225600' }, timeoutMs: BUILD_TIMEOUT_MS, signal },
    );
    // Two processes may make it at once: the same content, and the last one stays.
    await rename(partial, file);
  } finally {
    await rm(partial, { force: true });
  }
  return file;
}

/** The machine's package sources, as one text. mmdebstrap uses them when it is given no mirror. */
async function aptSources(): Promise<string> {
  const folder = '/etc/apt/sources.list.d';
  const names = (await readdir(folder).catch(() => [])).filter((name) => /\.(?:list|sources)$/.test(name)).sort();
  const files = ['/etc/apt/sources.list', ...names.map((name) => join(folder, name))];
  return (await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')))).join('\n');
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
