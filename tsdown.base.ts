import type { UserConfig } from 'tsdown';

/** What every published package is built with: ESM, types, one file per entry, Node 22 syntax. */
export function packageConfig(entry: Record<string, string>, extra: UserConfig = {}): UserConfig {
  return {
    entry,
    format: 'esm',
    target: 'node22',
    platform: 'neutral',
    dts: true,
    sourcemap: false,
    clean: true,
    outDir: 'dist',
    fixedExtension: false,
    deps: { neverBundle: [/^node:/] },
    ...extra,
  };
}
