import { parseArgs } from 'node:util';

import { formatDuration, isDecantError } from '../packages/core/src/index.ts';
import { run } from '../packages/core/src/node/index.ts';
import { ROOT } from './workspace.ts';

interface Check {
  readonly name: string;
  /** Arguments of `pnpm run`. */
  readonly script: readonly string[];
}

/** What needs no build comes first and side by side; the rest uses both cores itself. */
const QUICK: readonly Check[] = [
  { name: 'format', script: ['format:check'] },
  { name: 'lint', script: ['lint'] },
  { name: 'layers', script: ['layers'] },
  { name: 'types', script: ['typecheck'] },
  { name: 'unused', script: ['unused'] },
];
const SLOW: readonly Check[] = [
  { name: 'build', script: ['build'] },
  { name: 'packages', script: ['packages'] },
  { name: 'docs', script: ['docs'] },
];
const TIMEOUT_MS = 15 * 60_000;

interface Outcome {
  readonly name: string;
  readonly ok: boolean;
  readonly elapsedMs: number;
  /** Both outputs of a failed check. */
  readonly output: string;
}

async function runCheck({ name, script }: Check): Promise<Outcome> {
  const started = performance.now();
  const lines: string[] = [];
  try {
    await run('pnpm', ['run', ...script], {
      cwd: ROOT,
      timeoutMs: TIMEOUT_MS,
      onLine: (line) => {
        lines.push(line);
        if (lines.length > 400) lines.shift();
      },
    });
    return { name, ok: true, elapsedMs: performance.now() - started, output: '' };
  } catch (error) {
    if (!isDecantError(error)) throw error;
    const reason = error.code === 'PROCESS_FAILED' ? [] : [error.message];
    return { name, ok: false, elapsedMs: performance.now() - started, output: [...lines, ...reason].join('\n') };
  }
}

function show(outcome: Outcome): void {
  console.log(`${outcome.ok ? 'ok    ' : 'FAILED'}  ${outcome.name.padEnd(10)}${formatDuration(outcome.elapsedMs)}`);
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { quick: { type: 'boolean' } } });
  const quick = QUICK.map(async (check) => {
    const outcome = await runCheck(check);
    show(outcome);
    return outcome;
  });
  const outcomes = await Promise.all(quick);
  for (const check of values.quick === true ? [] : SLOW) {
    if (outcomes.some((outcome) => !outcome.ok)) {
      console.log(`not run ${check.name}`);
      continue;
    }
    const outcome = await runCheck(check);
    show(outcome);
    outcomes.push(outcome);
  }
  const failed = outcomes.filter((outcome) => !outcome.ok);
  for (const { name, output } of failed) console.log(`\n---- ${name} (pnpm run ${scriptOf(name)})\n${output}`);
  return failed.length > 0 ? 1 : 0;
}

function scriptOf(name: string): string {
  return [...QUICK, ...SLOW].find((check) => check.name === name)?.script.join(' ') ?? name;
}

process.exitCode = await main();
