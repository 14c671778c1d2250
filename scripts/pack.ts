import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { Semaphore } from '../packages/core/src/index.ts';
import { run } from '../packages/core/src/node/index.ts';
import { isEmptyPackage, SCOPE, workspacePackages, type WorkspacePackage } from './workspace.ts';

export interface Tarball {
  readonly item: WorkspacePackage;
  /** Path of the packed `.tgz`. */
  readonly file: string;
}

/** Packs every public package that exports something, as `pnpm publish` would, into a folder. Needs a build. */
export async function packAll(folder: string): Promise<{ tarballs: Tarball[]; empty: string[] }> {
  mkdirSync(folder, { recursive: true });
  const all = workspacePackages().filter((item) => item.manifest.private !== true);
  const two = new Semaphore(2);
  const tarballs = await Promise.all(
    all
      .filter((item) => !isEmptyPackage(item))
      .map((item) =>
        two.run(async () => {
          await run('pnpm', ['pack', '--pack-destination', folder], { cwd: item.folder, timeoutMs: 60_000 });
          const { name, version } = item.manifest;
          return { item, file: join(folder, `${name.replace('@', '').replace('/', '-')}-${version}.tgz`) };
        }),
      ),
  );
  return { tarballs, empty: all.filter(isEmptyPackage).map((item) => item.shortName) };
}

/** The tarballs of the workspace packages that one needs at run time, directly and through others. */
export function neededBy(item: WorkspacePackage, tarballs: readonly Tarball[]): Tarball[] {
  const needed = new Map<string, Tarball>();
  const visit = (from: WorkspacePackage) => {
    for (const name of Object.keys(from.manifest.dependencies ?? {})) {
      if (!name.startsWith(SCOPE) || needed.has(name)) continue;
      const tarball = tarballs.find((candidate) => candidate.item.manifest.name === name);
      if (tarball === undefined) throw new Error(`${from.manifest.name} needs ${name}, which exports nothing yet`);
      needed.set(name, tarball);
      visit(tarball.item);
    }
  };
  visit(item);
  return [...needed.values()];
}
