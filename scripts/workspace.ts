import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of this repository. */
export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/** What the scripts read of a `package.json`. */
export interface PackageJson {
  readonly name: string;
  readonly version: string;
  readonly private?: boolean;
  readonly description?: string;
  readonly bin?: Readonly<Record<string, string>>;
  readonly exports?: Readonly<Record<string, unknown>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

export interface WorkspacePackage {
  /** Name without the scope: `core`. */
  readonly shortName: string;
  readonly folder: string;
  readonly manifest: PackageJson;
}

export const SCOPE = '@decant/';

/** The packages below `packages/`, by folder name. */
export function workspacePackages(root: string = ROOT): WorkspacePackage[] {
  return readdirSync(join(root, 'packages'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort()
    .map((name) => {
      const folder = join(root, 'packages', name);
      const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as PackageJson;
      return { shortName: manifest.name.replace(SCOPE, ''), folder, manifest };
    });
}

/** True while a package has nothing in it yet: an empty `src/index.ts`, or a command without its `src/main.ts`. */
export function isEmptyPackage(item: WorkspacePackage): boolean {
  const entry = item.manifest.exports?.['.'] === undefined ? 'src/main.ts' : 'src/index.ts';
  try {
    return readFileSync(join(item.folder, entry), 'utf8').trim() === '';
  } catch {
    return true;
  }
}
