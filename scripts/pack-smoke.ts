import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';

import { Semaphore } from '../packages/core/src/index.ts';
import { run, type RunResult } from '../packages/core/src/node/index.ts';
import { LAYERS } from './layers.ts';
import { neededBy, packAll, type Tarball } from './pack.ts';
import { firstExample } from './readme-example.ts';
import { ROOT } from './workspace.ts';

/*
 * Packs every public package, and then does what a stranger would: judges the tarball (publint, are-the-types-wrong),
 * installs it alone in an empty npm project, type-checks an import of each of its entries, runs the example of its
 * README; the command is installed globally and started, also by an old Node.
 */

const INSTALL_TIMEOUT_MS = 180_000;
const BIN = join(ROOT, 'node_modules/.bin');
/** npm and the examples run on the Node that runs this script, not on the one that the system has. */
const PATH = [dirname(process.execPath), process.env['PATH'] ?? ''].join(delimiter);
const NPM_FLAGS = ['--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error', '--ignore-scripts'];

async function main(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'decant-pack-'));
  try {
    const { tarballs, empty } = await packAll(join(folder, 'tarballs'));
    if (empty.length > 0) console.log(`note: nothing exported yet, not packed: ${empty.join(', ')}`);
    const two = new Semaphore(2);
    const failures = await Promise.all(
      tarballs.map((tarball) => two.run(() => outcomeOf(tarball, tarballs, join(folder, tarball.item.shortName)))),
    );
    const failed = failures.filter((failure) => failure);
    console.log(`${tarballs.length} packages packed, ${failed.length} with problems`);
    return failed.length > 0 || tarballs.length === 0 ? 1 : 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** True when something is wrong, having said what. */
async function outcomeOf(tarball: Tarball, all: readonly Tarball[], folder: string): Promise<boolean> {
  const { shortName } = tarball.item;
  const started = performance.now();
  try {
    mkdirSync(folder);
    const notes = await checkPackage(tarball, all, folder);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`ok ${shortName} (${seconds} s)${notes.map((note) => `\n   note: ${note}`).join('')}`);
    return false;
  } catch (error) {
    console.error(`FAILED ${shortName}: ${error instanceof Error ? error.message : String(error)}`);
    return true;
  }
}

async function checkPackage(tarball: Tarball, all: readonly Tarball[], folder: string): Promise<string[]> {
  const { item, file } = tarball;
  await tool('publint', ['run', '--strict', file]);
  const library = item.manifest.exports?.['.'] !== undefined;
  if (library) await tool('attw', ['--profile', 'esm-only', '--no-emoji', '--no-color', file]);
  installAlone(tarball, all, folder);
  await npm(['install', ...NPM_FLAGS], folder);
  const notes = library ? await checkTypes(tarball, folder) : [];
  const readme = join(item.folder, 'README.md');
  if (!existsSync(readme)) throw new Error('there is no README.md');
  const example = firstExample(readFileSync(readme, 'utf8'));
  if (example !== undefined) {
    writeFileSync(join(folder, 'example.mjs'), example);
    const { stdout } = await node(['example.mjs'], folder);
    if (stdout.length === 0) throw new Error('the example of the README prints nothing');
  } else if (library) {
    throw new Error('the README has no ```js block');
  }
  if (item.manifest.bin !== undefined) notes.push(...(await checkCommand(tarball, folder)));
  return notes;
}

/** An empty project whose one dependency is the tarball; workspace packages below it come as tarballs, too. */
function installAlone({ item, file }: Tarball, all: readonly Tarball[], folder: string): void {
  const overrides = Object.fromEntries(
    neededBy(item, all).map((needed) => [needed.item.manifest.name, `file:${needed.file}`]),
  );
  const manifest = {
    name: 'consumer',
    private: true,
    type: 'module',
    dependencies: { [item.manifest.name]: `file:${file}` },
    overrides,
  };
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest, undefined, 2));
}

/**
 * Type-checks an import of each entry as a consumer without `skipLibCheck`. The main entry of a package for browsers
 * is checked without Node's types. Faults in the declarations of other projects are noted, ours are errors.
 */
async function checkTypes({ item }: Tarball, folder: string): Promise<string[]> {
  const entries = Object.keys(item.manifest.exports ?? {}).filter((entry) => entry !== './package.json');
  const published = JSON.parse(
    readFileSync(join(folder, 'node_modules', item.manifest.name, 'package.json'), 'utf8'),
  ) as { exports: Record<string, unknown> };
  const notes: string[] = [];
  for (const entry of entries.filter((name) => name in published.exports)) {
    const browser = entry === '.' && LAYERS[item.shortName]?.browser === true;
    const name = `entry${entry.replace(/\W+/g, '-')}`;
    const specifier = item.manifest.name + entry.slice(1);
    writeFileSync(
      join(folder, `${name}.ts`),
      `import * as subject from '${specifier}';\nexport type Names = keyof typeof subject;\n`,
    );
    const compilerOptions = {
      ...{ module: 'nodenext', target: 'es2023', strict: true, exactOptionalPropertyTypes: true, noEmit: true },
      lib: browser ? ['es2024', 'esnext.disposable', 'dom', 'dom.iterable'] : ['es2024', 'esnext.disposable'],
      types: browser ? [] : ['node'],
      typeRoots: [join(ROOT, 'node_modules/@types')],
    };
    writeFileSync(join(folder, `${name}.json`), JSON.stringify({ compilerOptions, files: [`${name}.ts`] }));
    const result = await run(join(BIN, 'tsc'), ['--pretty', 'false', '-p', `${name}.json`], {
      cwd: folder,
      okCodes: [0, 1, 2],
      timeoutMs: 120_000,
    });
    const faults = result.stdout
      .toString('utf8')
      .split('\n')
      .filter((line) => line.includes('error TS'));
    const ours = faults.filter((line) => !/^(?:\.\.\/)*node_modules\/(?!@decant\/)/.test(line));
    if (ours.length > 0) throw new Error(`types of ${specifier}:\n${ours.slice(0, 10).join('\n')}`);
    if (faults.length > 0) notes.push(`${faults.length} faults in declarations of others behind ${specifier}`);
  }
  return notes;
}

/** Starts the commands of the tarball, a pure one installed globally, on this Node and on an old one if there is one. */
async function checkCommand({ item, file }: Tarball, folder: string): Promise<string[]> {
  // A library has been installed with what it needs already; a command brings everything itself.
  const library = item.manifest.exports?.['.'] !== undefined;
  const prefix = join(folder, 'global');
  if (!library) await npm(['install', '-g', '--prefix', prefix, ...NPM_FLAGS, file], folder);
  const notes: string[] = [];
  for (const name of Object.keys(item.manifest.bin ?? {})) {
    const command = library ? join(folder, 'node_modules/.bin', name) : join(prefix, 'bin', name);
    const { stdout } = await run(command, ['--version'], { env: { ...process.env, PATH }, timeoutMs: 30_000 });
    if (!stdout.toString('utf8').includes(item.manifest.version))
      throw new Error(`${name} --version gave: ${stdout.toString('utf8')}`);
    const old = await oldSystemNode();
    if (old === undefined) {
      notes.push('the system has no Node older than 22, so the message for one was not tried');
      continue;
    }
    const refused = await run(old, [command, '--version'], { okCodes: [...Array(256).keys()], timeoutMs: 30_000 });
    const lines = refused.stderr.toString('utf8').trimEnd().split('\n');
    if (refused.exitCode === 0 || lines.length !== 1 || !/node/i.test(lines[0]!)) {
      throw new Error(`on an old Node ${name} ended with ${refused.exitCode} and said: ${lines.join(' | ')}`);
    }
  }
  return notes;
}

/** A Node older than 22 outside of this repository. */
async function oldSystemNode(): Promise<string | undefined> {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((path) => !path.includes('node_modules'));
  for (const path of [...folders, '/usr/bin', '/usr/local/bin']) {
    const candidate = join(path, 'node');
    const version = await run(candidate, ['--version'], { timeoutMs: 10_000 }).then(
      (result) => /^v(\d+)/.exec(result.stdout.toString('utf8'))?.[1],
      () => undefined,
    );
    if (version !== undefined && Number(version) < 22) return candidate;
  }
  return undefined;
}

async function tool(name: string, args: readonly string[]): Promise<RunResult> {
  return said(run(join(BIN, name), args, { timeoutMs: 120_000 }), name);
}

function npm(args: readonly string[], cwd: string): Promise<RunResult> {
  return said(run('npm', args, { cwd, env: { ...process.env, PATH }, timeoutMs: INSTALL_TIMEOUT_MS }), 'npm');
}

function node(args: readonly string[], cwd: string): Promise<RunResult> {
  return said(run(process.execPath, args, { cwd, timeoutMs: 60_000 }), 'the example of the README');
}

/** What a failed program wrote, under a name that says what it was for. */
async function said(result: Promise<RunResult>, name: string): Promise<RunResult> {
  return result.catch((error: unknown) => {
    throw new Error(`${name}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  });
}

process.exitCode = await main();
