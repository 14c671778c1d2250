import { defineConfig } from 'vitest/config';

const source = { resolve: { conditions: ['@decant/source'] }, ssr: { resolve: { conditions: ['@decant/source'] } } };

export default defineConfig({
  ...source,
  test: {
    projects: [
      {
        ...source,
        test: {
          name: 'unit',
          include: ['packages/*/src/**/*.test.ts', 'scripts/**/*.test.ts'],
          exclude: ['**/*.e2e.test.ts', '**/node_modules/**'],
        },
      },
    ],
  },
});
