import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { whyMissing } from './backends.ts';
import { ensureSystemDependencies } from './system-deps.ts';
import { backendsOf, closingLine, requiredBackends, summarize, type TestRun } from './test-report.ts';
import { ROOT } from './workspace.ts';

/**
 * `pnpm test [VITEST ARGUMENTS]`: installs missing Debian packages where it may, runs vitest, tells which real
 * backends took part, and ends with `N passed, N failed, N skipped`.
 */
async function main(): Promise<number> {
  const args = process.argv.slice(2);
  // `--project unit` needs no tool of the system.
  const onlyUnit = /--project[= ]unit(?:\s|$)/.test(args.join(' '));
  if (!onlyUnit) await ensureSystemDependencies({ groups: ['test'] });
  const folder = mkdtempSync(join(tmpdir(), 'decant-test-'));
  try {
    const file = join(folder, 'results.json');
    const exitCode = await runVitest(args, file);
    const run = readResults(file);
    const required = requiredBackends(process.env, () => readFileSync(join(ROOT, '.ci/backends'), 'utf8'));
    const summary = summarize(run, required, await reasonsFor(run, required));
    console.log();
    for (const line of summary.lines) console.log(line);
    // A failure that no test shows, such as a broken tear-down, counts as well.
    const unseen = exitCode !== 0 && summary.failed === 0;
    if (unseen) console.log(`vitest ended with status ${exitCode}`);
    const nothingRan = summary.passed + summary.failed === 0;
    console.log(closingLine({ ...summary, failed: summary.failed + (unseen ? 1 : 0) }));
    return exitCode !== 0 ? exitCode : summary.failed > 0 || nothingRan ? 1 : 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function runVitest(args: readonly string[], resultsFile: string): Promise<number> {
  const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs');
  const reporters = ['--reporter=default', `--reporter=${join(ROOT, 'scripts/test-reporter.ts')}`];
  const child = spawn(process.execPath, [vitest, 'run', ...reporters, ...args], {
    cwd: ROOT,
    stdio: 'inherit',
    env: { ...process.env, DECANT_TEST_RESULTS: resultsFile },
  });
  // Ctrl-C reaches vitest through the terminal; a TERM is passed on, so that it can stop its servers.
  const onTerm = () => child.kill('SIGTERM');
  const onInterrupt = () => undefined;
  process.on('SIGTERM', onTerm);
  process.on('SIGINT', onInterrupt);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      process.off('SIGTERM', onTerm);
      process.off('SIGINT', onInterrupt);
      resolve(code ?? 130);
    });
  });
}

function readResults(file: string): TestRun {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as TestRun;
  } catch {
    return { tests: [], otherFailures: ['vitest ended before it had run the tests'] };
  }
}

async function reasonsFor(run: TestRun, required: readonly string[]): Promise<Record<string, string>> {
  const names = new Set([...required, ...run.tests.flatMap((test) => backendsOf(test.fullName))]);
  const reasons = await Promise.all([...names].map(async (name) => [name, await whyMissing(name)] as const));
  return Object.fromEntries(reasons.filter((entry): entry is [string, string] => entry[1] !== undefined));
}

process.exitCode = await main();
