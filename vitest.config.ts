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

export default defineConfig({
  ...source,
  test: {
    teardownTimeout: 60_000,
    projects: [
      {
        ...source,
        test: {
          name: 'unit',
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
          name: 'system',
          include: [`packages/*/src/${SYSTEM_TESTS}`],
          exclude: ['**/node_modules/**'],
          globalSetup: ['packages/testkit/src/setup.ts'],
          testTimeout: 120_000,
          hookTimeout: 180_000,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        ...source,
        test: {
          // Whole-system stories, two files at a time: each has its own home, names and devices.
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
