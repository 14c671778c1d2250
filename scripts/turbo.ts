import { spawn } from 'node:child_process';
import { delimiter, dirname, join } from 'node:path';

import { ROOT } from './workspace.ts';

/**
 * Runs turbo without telemetry and with the pnpm that runs this script first on its path. Turbo starts `pnpm`
 * itself; one that was installed without its install scripts is a text file that only a shell can start.
 */
const pnpm = process.env['npm_execpath'];
const path = process.env['PATH'] ?? '';
const child = spawn(join(ROOT, 'node_modules/.bin/turbo'), process.argv.slice(2), {
  cwd: ROOT,
  stdio: 'inherit',
  env: {
    ...process.env,
    TURBO_TELEMETRY_DISABLED: '1',
    PATH: pnpm === undefined ? path : [dirname(pnpm), path].join(delimiter),
  },
});
child.on('error', (error) => {
  console.error(`turbo could not be started: ${error.message}`);
  process.exitCode = 1;
});
child.on('close', (code) => {
  process.exitCode = code ?? 1;
});
