/**
 * The main job on real input, as a person would do it at the terminal: build an image, stream it, change a
 * file, build again, run it. Every step is a command of decant; nothing happens behind its back.
 */
import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { chooseBuilder, detectBuilders, type BuilderDriver } from '../packages/builder-local/src/index.ts';
import { formatBytes, isDecantError } from '../packages/core/src/index.ts';
import type { ImageResult, RunStats } from '../packages/sdk/src/index.ts';
import { debianBase } from '../packages/testkit/src/index.ts';
import { ensureSystemDependencies } from './system-deps.ts';
import { ROOT } from './workspace.ts';

const EXAMPLE = join(ROOT, 'examples', 'hello-python');
const NAME = 'hello-python';
const BASE_REFERENCE = 'debian:bookworm-slim';
const TOKEN_URL = 'https://auth.docker.io/token?service=registry.docker.io&scope=repository:library/debian:pull';
const MANIFEST_URL = 'https://registry-1.docker.io/v2/library/debian/manifests/bookworm-slim';
const LOCAL_BASE = 'decant-demo-base:latest';
/** How long the registry of the base image has to answer, in milliseconds. */
const REGISTRY_TIMEOUT_MS = 4000;

const colours = process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '';
const bold = (text: string) => (colours ? `\u001B[1m${text}\u001B[0m` : text);
const dim = (text: string) => (colours ? `\u001B[2m${text}\u001B[0m` : text);
const say = (text = '') => process.stdout.write(`${text}\n`);

/** Engines stand in for each other: which of them can be used is seen when one is chosen. */
const ENGINES = new Set(['docker.io', 'buildah', 'runc']);

/** Aborted by Ctrl-C, which a command that runs gets from the terminal as well, and by TERM, which is passed on. */
const controller = new AbortController();
const { signal } = controller;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { yes: { type: 'boolean' } } });
  if (process.getuid?.() !== 0) {
    throw new Error('The last step mounts an image and fences it in, which needs root: run the demo as root.');
  }
  const started = performance.now();
  const { missing, command } = await ensureSystemDependencies({ groups: ['demo'], yes: values.yes, signal });
  if (missing.some((name) => !ENGINES.has(name))) {
    throw new Error(
      `Debian packages are missing: ${missing.join(', ')}.\nInstall them with: ${command}\nOr let the demo do it: npx -y pnpm@12.21.0 demo --yes`,
    );
  }
  const folder = await mkdtemp(join(tmpdir(), 'decant-demo-'));
  try {
    await show(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  say();
  say(dim(`The demo took ${Math.round((performance.now() - started) / 1000)} s.`));
}

async function show(folder: string): Promise<void> {
  title('1. A base image');
  const { driver, why } = chooseBuilder(await detectBuilders({ signal }));
  say(`   ${why}`);
  let base = await baseImage(driver);

  title('2. A Dockerfile becomes an image that streams');
  const context = join(folder, NAME);
  await cp(EXAMPLE, context, { recursive: true });
  const create = async () =>
    JSON.parse(
      await decant(['image', 'create', context, '--streaming', '-n', NAME, '--build-arg', `BASE=${base}`, '--json']),
    ) as ImageResult;
  const first = await create().catch(async (error: unknown) => {
    if (!(error instanceof CommandFailed) || error.status !== BUILD_FAILED || base === LOCAL_BASE) throw error;
    say(`   That failed with ${base}; once more with a base that is made here.`);
    await importLocalBase(driver);
    base = LOCAL_BASE;
    return create();
  });
  report(first);

  title('3. One source file changes');
  const greetings = join(context, 'greetings.txt');
  await writeFile(greetings, `${await readFile(greetings, 'utf8')}sw Habari ${Date.now()}\n`);
  const second = await create();
  report(second);
  const share = (100 * second.bytes.new) / second.image.contentBytes;
  say(
    bold(
      `   The new version is ${formatBytes(second.image.contentBytes)}; ${formatBytes(second.bytes.new)} of it were new ` +
        `(${share.toFixed(2)} %), ${formatBytes(second.bytes.uploaded)} travelled.`,
    ),
  );

  title('4. It runs while its disk arrives');
  const statsFile = join(folder, 'stats.json');
  await decant(['run', '--stats-file', statsFile, NAME], { inherit: true });
  const stats = JSON.parse(await readFile(statsFile, 'utf8')) as RunStats;
  const fetched = (100 * stats.bytesFetched) / stats.bytesVirtual;
  say(
    bold(
      `   ${formatBytes(stats.bytesFetched)} of a ${formatBytes(stats.bytesVirtual)} disk were ever fetched ` +
        `(${fetched.toFixed(1)} %), in ${stats.chunksFetched} chunks.`,
    ),
  );

  title('5. Try next');
  say('   npx -y pnpm@12.21.0 decant image ls');
  say(`   npx -y pnpm@12.21.0 decant run ${NAME} -- python3 -c 'import sys; print(sys.version)'`);
  say('   npx -y pnpm@12.21.0 decant doctor');
}

function title(text: string): void {
  say();
  say(bold(text));
}

function report({ image, chunks, bytes, timingsMs }: ImageResult): void {
  say(`   ${image.id}`);
  say(
    `   ${formatBytes(image.contentBytes)} in ${chunks?.total ?? 0} chunks: ${chunks?.new ?? 0} new, ` +
      `${chunks?.reused ?? 0} reused; stored ${formatBytes(bytes.stored)} in ${(timingsMs.total / 1000).toFixed(1)} s`,
  );
}

/** The base to build from: pulled from its registry when that answers, else made from this machine's package mirror. */
async function baseImage(driver: BuilderDriver): Promise<string> {
  if (await driver.imageExists(BASE_REFERENCE, { signal })) {
    say(`   ${BASE_REFERENCE} is there already.`);
    return BASE_REFERENCE;
  }
  if (await registryAnswers()) {
    say(`   ${BASE_REFERENCE} will be pulled from its registry.`);
    return BASE_REFERENCE;
  }
  say(`   The registry of ${BASE_REFERENCE} cannot be used, so the base is made here from Debian's packages.`);
  await importLocalBase(driver);
  return LOCAL_BASE;
}

/** Whether the registry gives out the base image now: that it is up is not enough, it may have counted too many pulls. */
async function registryAnswers(): Promise<boolean> {
  const timely = { signal: AbortSignal.any([signal, AbortSignal.timeout(REGISTRY_TIMEOUT_MS)]) };
  try {
    const asked = await fetch(TOKEN_URL, timely);
    const { token } = (await asked.json()) as { token?: string };
    const headers = { authorization: `Bearer ${token ?? ''}`, accept: 'application/vnd.oci.image.index.v1+json' };
    return (await fetch(MANIFEST_URL, { ...timely, method: 'HEAD', headers })).ok;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

async function importLocalBase(driver: BuilderDriver): Promise<void> {
  if (await driver.imageExists(LOCAL_BASE, { signal })) {
    say(`   ${LOCAL_BASE} is there from an earlier run.`);
    return;
  }
  say('   mmdebstrap puts a minimal Debian together; this takes about half a minute …');
  const tarFile = await debianBase({ cacheFolder: join(ROOT, '.cache'), signal });
  await driver.importBase({ tarFile, reference: LOCAL_BASE }, { signal });
  say(`   imported it as ${LOCAL_BASE}.`);
}

/** Exit status of decant when a build failed. */
const BUILD_FAILED = 5;

/** A decant command ended with another status than 0, having said why. */
class CommandFailed extends Error {
  readonly status: number | null;

  constructor(args: readonly string[], status: number | null) {
    super(`decant ${args.slice(0, 2).join(' ')} ended with status ${status}; what it said stands above.`);
    this.status = status;
  }
}

/** Runs a decant command of this checkout and returns its standard output. */
function decant(args: readonly string[], { inherit = false } = {}): Promise<string> {
  say(dim(`   $ decant ${args.map((arg) => (/^[\w./:=@-]+$/.test(arg) ? arg : JSON.stringify(arg))).join(' ')}`));
  const program = join(ROOT, 'packages', 'cli', 'src', 'main.ts');
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--conditions=@decant/source', program, ...args], {
      stdio: ['inherit', inherit ? 'inherit' : 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (output += text));
    const passOn = () => child.kill('SIGTERM');
    process.once('SIGTERM', passOn);
    child.once('error', reject);
    child.once('close', (code) => {
      process.off('SIGTERM', passOn);
      if (code === 0) resolve(output);
      else reject(signal.aborted ? signal.reason : new CommandFailed(args, code));
    });
  });
}

for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => controller.abort(new Error('it was interrupted.')));
}
try {
  await main();
} catch (error) {
  process.stderr.write(`\nThe demo stopped: ${error instanceof Error ? error.message : String(error)}\n`);
  if (isDecantError(error) && error.hint !== undefined) process.stderr.write(`${error.hint}\n`);
  process.exitCode = signal.aborted ? 130 : 1;
}
