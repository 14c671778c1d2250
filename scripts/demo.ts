/**
 * The main job on real input, as a person would do it at the terminal: build an image, stream it, change a
 * file, build again, run it. Every step is a command of decant; nothing happens behind its back.
 */
import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chooseBuilder, detectBuilders, type BuilderDriver } from '../packages/builder-local/src/index.ts';
import { formatBytes, isDecantError } from '../packages/core/src/index.ts';
import type { ImageResult, RunStats } from '../packages/sdk/src/index.ts';
import { debianBase } from '../packages/testkit/src/index.ts';
import { ensureSystemDependencies } from './system-deps.ts';
import { ROOT } from './workspace.ts';

const EXAMPLE = join(ROOT, 'examples', 'hello-python');
const NAME = 'hello-python';
const BASE_REFERENCE = 'debian:bookworm-slim';
const LOCAL_BASE = 'decant-demo-base:latest';
/** How long the registry of the base image has to answer, in milliseconds. */
const REGISTRY_TIMEOUT_MS = 4000;

const bold = (text: string) => (process.stdout.isTTY ? `\u001B[1m${text}\u001B[0m` : text);
const dim = (text: string) => (process.stdout.isTTY ? `\u001B[2m${text}\u001B[0m` : text);
const say = (text = '') => process.stdout.write(`${text}\n`);

async function main(): Promise<void> {
  const started = performance.now();
  const { missing, command } = await ensureSystemDependencies({ groups: ['demo'] });
  if (missing.length > 0) {
    throw new Error(`These Debian packages are missing: ${missing.join(', ')}. Install them with: ${command}`);
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
  const base = await baseImage();

  title('2. A Dockerfile becomes an image that streams');
  const context = join(folder, NAME);
  await cp(EXAMPLE, context, { recursive: true });
  const create = ['image', 'create', context, '--streaming', '--name', NAME, '--build-arg', `BASE=${base}`, '--json'];
  const first = JSON.parse(await decant(create)) as ImageResult;
  report(first);

  title('3. One source file changes');
  const greetings = join(context, 'greetings.txt');
  await writeFile(greetings, `${await readFile(greetings, 'utf8')}sw Habari ${Date.now()}\n`);
  const second = JSON.parse(await decant(create)) as ImageResult;
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
  say('   pnpm decant image ls');
  say(`   pnpm decant run ${NAME} -- python3 -c 'import sys; print(sys.version)'`);
  say('   pnpm decant doctor');
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
async function baseImage(): Promise<string> {
  const { driver, why } = chooseBuilder(await detectBuilders());
  say(`   ${why}`);
  if (await driver.imageExists(BASE_REFERENCE)) {
    say(`   ${BASE_REFERENCE} is there already.`);
    return BASE_REFERENCE;
  }
  if (await registryAnswers()) {
    say(`   ${BASE_REFERENCE} will be pulled from its registry.`);
    return BASE_REFERENCE;
  }
  say(`   The registry of ${BASE_REFERENCE} does not answer, so the base is made here from Debian's packages.`);
  await importLocalBase(driver);
  return LOCAL_BASE;
}

async function registryAnswers(): Promise<boolean> {
  try {
    const signal = AbortSignal.timeout(REGISTRY_TIMEOUT_MS);
    // 401 is how this registry says hello to whoever has no token yet.
    const { status } = await fetch('https://registry-1.docker.io/v2/', { signal, redirect: 'error' });
    return status === 200 || status === 401;
  } catch {
    return false;
  }
}

async function importLocalBase(driver: BuilderDriver): Promise<void> {
  if (await driver.imageExists(LOCAL_BASE)) {
    say(`   ${LOCAL_BASE} is there from an earlier run.`);
    return;
  }
  say('   mmdebstrap puts a minimal Debian together; this takes about half a minute …');
  const tarFile = await debianBase({ cacheFolder: join(ROOT, '.cache') });
  await driver.importBase({ tarFile, reference: LOCAL_BASE });
  say(`   imported it as ${LOCAL_BASE}.`);
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
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve(output);
      else reject(new Error(`decant ${args[0]} ended with status ${code}`));
    });
  });
}

try {
  await main();
} catch (error) {
  process.stderr.write(`\nThe demo stopped: ${error instanceof Error ? error.message : String(error)}\n`);
  if (isDecantError(error) && error.hint !== undefined) process.stderr.write(`${error.hint}\n`);
  process.exitCode = 1;
}
