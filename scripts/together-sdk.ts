import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { rolldown } from 'rolldown';

import { ROOT } from './workspace.ts';

/** Version 4.0.3 of the SDK. */
const COMMIT = 'a6d9c05';
const REPOSITORY = 'https://github.com/togethercomputer/together-sandbox';

/**
 * `node scripts/together-sdk.ts [REPOSITORY]`: tries the service with Together's published TypeScript SDK. It is cloned
 * from the repository (or a copy of it), bundled as it is with its own dependencies, and used by e2e/together-sdk.test.ts.
 */
async function main([repository = REPOSITORY]: readonly string[]): Promise<number> {
  const folder = join(ROOT, '.cache/together-sdk');
  const source = join(folder, 'together-sandbox-typescript');
  if (!existsSync(source)) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(join(ROOT, '.cache'), { recursive: true });
    run('git', ['clone', '--quiet', '--no-checkout', repository, folder], ROOT);
    run('git', ['-c', 'advice.detachedHead=false', 'checkout', '--quiet', COMMIT], folder);
  }
  run('npm', ['install', '--omit=dev', '--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock'], source);
  const bundle = join(folder, 'bundle.mjs');
  const build = await rolldown({ input: join(source, 'src/index.ts'), platform: 'node', logLevel: 'silent' });
  await build.write({ file: bundle, format: 'esm', codeSplitting: false });
  await build.close();
  const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs');
  const { status } = spawnSync(process.execPath, [vitest, 'run', '--project', 'e2e', 'e2e/together-sdk.test.ts'], {
    cwd: ROOT,
    stdio: 'inherit',
    env: { ...process.env, DECANT_TOGETHER_SDK: bundle },
  });
  return status ?? 1;
}

function run(command: string, args: readonly string[], cwd: string): void {
  const { status, error } = spawnSync(command, args, { cwd, stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) throw error ?? new Error(`${command} ${args.join(' ')} ended with status ${status}`);
}

process.exitCode = await main(process.argv.slice(2));
