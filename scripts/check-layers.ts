import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { pathToFileURL } from 'node:url';

import { LAYERS, type Layer } from './layers.ts';
import { ROOT, SCOPE, workspacePackages, type WorkspacePackage } from './workspace.ts';

export interface Violation {
  /** File, relative to the repository, with the line where one is known. */
  readonly where: string;
  readonly problem: string;
  readonly reason: string;
}

export interface LayersReport {
  readonly packages: number;
  readonly files: number;
  readonly imports: number;
  readonly violations: readonly Violation[];
}

interface Import {
  readonly specifier: string;
  readonly line: number;
  /** Erased at run time: `import type` or `export type … from`. */
  readonly typeOnly: boolean;
}

// The formatter puts every static import and re-export at the start of a line, so comments and nested text do not match.
const STATIC = /^(?:import|export)\s+(type\s+)?(?:[\w$*{},\s]+?\sfrom\s+|(?=['"]))['"]([^'"\n]+)['"]/gm;
const DYNAMIC = /\b(?:import|require|getBuiltinModule)\(\s*['"]([^'"\n]+)['"]\s*[,)]/g;

/** Every import, re-export, dynamic import and require of a source text. */
export function importsOf(text: string): Import[] {
  const lineAt = (index: number) => text.slice(0, index).split('\n').length;
  const found: Import[] = [];
  for (const match of text.matchAll(STATIC)) {
    found.push({ specifier: match[2]!, line: lineAt(match.index), typeOnly: match[1] !== undefined });
  }
  for (const match of text.matchAll(DYNAMIC)) {
    found.push({ specifier: match[1]!, line: lineAt(match.index), typeOnly: false });
  }
  return found;
}

/**
 * Checks every dependency and every import below `packages/` of `root` against the table of layers.
 * A report over no files or no imports is itself a violation: a check that read nothing proves nothing.
 */
export function checkLayers(root: string = ROOT, layers: Readonly<Record<string, Layer>> = LAYERS): LayersReport {
  const violations: Violation[] = [];
  const packages = workspacePackages(root);
  let files = 0;
  let imports = 0;
  for (const item of packages) {
    const layer = layers[item.shortName];
    if (layer === undefined) {
      violations.push({
        where: relative(root, join(item.folder, 'package.json')),
        problem: `${item.manifest.name} is not in the table of layers`,
        reason: 'every package has a place; add it to scripts/layers.ts and to the table in the documentation',
      });
      continue;
    }
    violations.push(...checkManifest(item, layer, layers, root));
    for (const file of sourceFiles(item.folder)) {
      files++;
      for (const found of importsOf(readFileSync(file, 'utf8'))) {
        imports++;
        violations.push(...checkImport(item, layer, layers, root, file, found));
      }
    }
    if (layer.browser === true) violations.push(...checkBrowserEntry(item, layers, root));
  }
  if (files === 0 || imports === 0) {
    violations.push({
      where: relative(root, join(root, 'packages')),
      problem: `${files} files with ${imports} imports were checked`,
      reason: 'a check that read nothing proves nothing',
    });
  }
  return { packages: packages.length, files, imports, violations };
}

function checkManifest(
  item: WorkspacePackage,
  layer: Layer,
  layers: Readonly<Record<string, Layer>>,
  root: string,
): Violation[] {
  const { manifest } = item;
  const where = relative(root, join(item.folder, 'package.json'));
  const fields = [
    manifest.dependencies,
    manifest.devDependencies,
    manifest.peerDependencies,
    manifest.optionalDependencies,
  ];
  return fields
    .flatMap((field) => Object.keys(field ?? {}))
    .filter((name) => name.startsWith(SCOPE))
    .flatMap((name) => forbidden(item.shortName, layer, name.slice(SCOPE.length), layers))
    .map((found) => ({ where, ...found }));
}

/** Nothing when `target` may be imported, else what is wrong and why. */
function forbidden(
  from: string,
  layer: Layer,
  target: string,
  layers: Readonly<Record<string, Layer>>,
): Pick<Violation, 'problem' | 'reason'>[] {
  if (target === from || target === 'core' || layer.imports.includes(target)) return [];
  const other = layers[target];
  const problem = `${from} imports ${target}`;
  if (other === undefined) return [{ problem, reason: `there is no package ${target} in the table of layers` }];
  if (target === 'testkit') return [{ problem, reason: other.reason }];
  if (other.row === layer.row) {
    return [{ problem, reason: `packages of one row never import each other (row ${layer.row}): ${layer.reason}` }];
  }
  if (other.row > layer.row) {
    return [{ problem, reason: `${target} is above ${from} (row ${other.row} over ${layer.row}): ${layer.reason}` }];
  }
  return [{ problem, reason: `the table does not list it: ${layer.reason}` }];
}

function checkImport(
  item: WorkspacePackage,
  layer: Layer,
  layers: Readonly<Record<string, Layer>>,
  root: string,
  file: string,
  found: Import,
): Violation[] {
  const where = `${relative(root, file)}:${found.line}`;
  if (found.specifier.startsWith('.')) {
    const target = resolve(dirname(file), found.specifier);
    if (target.startsWith(item.folder + sep)) return [];
    return [
      {
        where,
        problem: `${found.specifier} leaves the package`,
        reason: 'a package is reached by its name, through what it exports; relative imports stay inside',
      },
    ];
  }
  if (!found.specifier.startsWith(SCOPE)) return [];
  const target = found.specifier.slice(SCOPE.length).split('/')[0]!;
  const problems: Violation[] = forbidden(item.shortName, layer, target, layers).map((entry) => ({ where, ...entry }));
  const { dependencies = {}, devDependencies = {} } = item.manifest;
  const name = SCOPE + target;
  // A package with a program and no library entry is bundled, so what it needs are development dependencies.
  const bundled = item.manifest.bin !== undefined && item.manifest.exports?.['.'] === undefined;
  const declared = name in dependencies || ((bundled || isTest(file)) && name in devDependencies);
  if (!declared && target !== item.shortName) {
    problems.push({
      where,
      problem: `${name} is not among the dependencies of ${item.manifest.name}`,
      reason: 'the packed package would not find it',
    });
  }
  return problems;
}

/** Follows what runs from `src/index.ts`, inside the package, and reports every Node built-in on the way. */
function checkBrowserEntry(item: WorkspacePackage, layers: Readonly<Record<string, Layer>>, root: string): Violation[] {
  const violations: Violation[] = [];
  const entry = join(item.folder, 'src/index.ts');
  const from = new Map<string, string | undefined>([[entry, undefined]]);
  const pathTo = (file: string): string => {
    const chain: string[] = [];
    for (let at: string | undefined = file; at !== undefined; at = from.get(at)) {
      chain.unshift(relative(item.folder, at));
    }
    return chain.join(' → ');
  };
  for (const file of from.keys()) {
    if (!existsSync(file)) continue;
    for (const { specifier, line, typeOnly } of importsOf(readFileSync(file, 'utf8'))) {
      if (typeOnly) continue;
      const where = `${relative(root, file)}:${line}`;
      if (isBuiltin(specifier)) {
        violations.push({
          where,
          problem: `${specifier} is reachable from the main entry (${pathTo(file)})`,
          reason: `${item.shortName} runs in a browser from its main entry; Node parts belong into its ./node entry`,
        });
      } else if (specifier.startsWith(SCOPE)) {
        const [target = '', ...rest] = specifier.slice(SCOPE.length).split('/');
        if (rest[0] === 'node' || layers[target]?.browser !== true) {
          violations.push({
            where,
            problem: `${specifier} is reachable from the main entry (${pathTo(file)})`,
            reason: `${item.shortName} runs in a browser from its main entry and ${specifier} does not`,
          });
        }
      } else if (specifier.startsWith('.')) {
        const target = resolve(dirname(file), specifier);
        if (!from.has(target)) from.set(target, file);
      }
    }
  }
  return violations;
}

function isTest(file: string): boolean {
  return /\.(?:test|bench)\.ts$|\.test-support\.ts$|[/\\](?:contract|test-support)(?:[/\\]|\.ts$)/.test(file);
}

function sourceFiles(folder: string): string[] {
  return ['src', 'bin'].flatMap((part) => {
    const path = join(folder, part);
    if (!existsSync(path)) return [];
    return readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.[cm]?[jt]s$/.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name))
      .sort();
  });
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const report = checkLayers();
  for (const { where, problem, reason } of report.violations) console.error(`${where}: ${problem}\n    ${reason}`);
  console.log(
    `${report.packages} packages, ${report.files} files, ${report.imports} imports, ${report.violations.length} violations`,
  );
  if (report.violations.length > 0) process.exitCode = 1;
}
