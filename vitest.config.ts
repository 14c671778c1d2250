import { defineConfig } from 'vitest/config';

// Tests run on sources: this condition leads every package name to its src/. Vite asks for it once per environment;
// `__vitest__` is the one that loads the global set-up.
const conditions = ['@decant/source', 'module', 'node', 'development|production'];
const source = {
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  environments: { __vitest__: { resolve: { conditions } } },
};

const SYSTEM_TESTS = '**/*.system.test.ts';

// Time limits find what hangs; they say nothing about speed. A busy machine of two cores may take many times as long as
// usual, so they are far above what any test takes.
const patience = {
  expect: { poll: { timeout: 30_000, interval: 30 } },
  setupFiles: process.env['CI'] ? ['scripts/ci-draws.ts'] : [],
};

export default defineConfig({
  ...source,
  test: {
    teardownTimeout: 60_000,
    projects: [
      {
        ...source,
        test: {
          ...patience,
          name: 'unit',
          testTimeout: 120_000,
          hookTimeout: 120_000,
          include: [
            'packages/*/src/**/*.test.ts',
            'scripts/**/*.test.ts',
            'bench/*.test.ts',
            'fuzz/*.test.ts',
            'apps/*/*.test.ts',
          ],
          exclude: [SYSTEM_TESTS, '**/node_modules/**'],
          sequence: { groupOrder: 0 },
        },
      },
      {
        ...source,
        test: {
          // With real tools: engines, mounts, kernels. Two files at a time, and no unit test beside them.
          ...patience,
          name: 'system',
          include: [`packages/*/src/${SYSTEM_TESTS}`],
          exclude: ['**/node_modules/**'],
          globalSetup: ['packages/testkit/src/setup.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        ...source,
        test: {
          // Whole-system stories, two files at a time: each has its own home, names and devices.
          ...patience,
          name: 'e2e',
          include: ['e2e/**/*.test.ts'],
          globalSetup: ['packages/testkit/src/setup.ts'],
          testTimeout: 600_000,
          hookTimeout: 600_000,
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
