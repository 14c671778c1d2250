import type { KnipConfig } from 'knip';

import { isEmptyPackage, workspacePackages } from './scripts/workspace.ts';

// A package that is only a name yet uses none of its dependencies.
const empty = workspacePackages().filter((item) => isEmptyPackage(item));

const config: KnipConfig = {
  ignoreWorkspaces: empty.map((item) => `packages/${item.shortName}`),
  ignoreExportsUsedInFile: true,
  rules: {
    // Programs of the system are listed in scripts/system-deps.ts.
    binaries: 'off',
    catalog: empty.length > 0 ? 'off' : 'error',
  },
  workspaces: {
    '.': {
      entry: ['scripts/*.ts', 'bench/run.ts', 'e2e/**/*.ts', 'fuzz/fuzz-worker.ts'],
      project: ['scripts/**/*.ts', 'e2e/**/*.ts', 'fuzz/**/*.ts', '*.ts'],
      // Started by path from scripts/.
      ignoreDependencies: ['@arethetypeswrong/cli', 'turbo'],
    },
    bench: {
      // A program of its own; started by path.
      entry: ['run.ts', 'bottle-launcher.ts'],
      project: ['*.ts'],
    },
    'packages/*': {
      entry: ['src/**/contract.ts', 'src/**/*-worker.ts'],
      project: ['src/**/*.ts'],
    },
    'packages/bottle': {
      // A program of its own; started by path.
      entry: ['src/egress/sidecar.ts', 'src/**/*-worker.ts'],
      project: ['src/**/*.ts'],
      // Its program is found by path, without the script that would put a link to it in place.
      ignoreDependencies: ['deno'],
    },
    'packages/cli': {
      entry: ['src/main.ts', 'bin/*'],
      project: ['src/**/*.ts'],
    },
    'apps/docs': {
      project: ['*.ts', '.vitepress/*.ts'],
    },
  },
};

// Knip loads its configuration by the default export.
export default config;
