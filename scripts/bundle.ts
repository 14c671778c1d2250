import { gzipSync } from 'node:zlib';

import { rolldown } from 'rolldown';

export interface BrowserBundle {
  readonly code: string;
  /** Modules that are not in it and that a browser would have to find itself. */
  readonly imports: readonly string[];
  readonly minifiedBytes: number;
  readonly gzipBytes: number;
}

/** One minified file for a browser, from the sources of the packages. */
export async function bundleForBrowser(entry: string): Promise<BrowserBundle> {
  await using bundle = await rolldown({
    input: entry,
    platform: 'browser',
    resolve: { conditionNames: ['@decant/source', 'browser', 'import', 'default'] },
    // What a browser cannot have stays an import, which shows, instead of an empty module, which does not.
    external: (id) => id.startsWith('node:'),
    logLevel: 'silent',
  });
  const { output } = await bundle.generate({ format: 'esm', minify: true, codeSplitting: false });
  const [chunk] = output;
  const bytes = Buffer.from(chunk.code);
  return {
    code: chunk.code,
    imports: [...chunk.imports, ...chunk.dynamicImports],
    minifiedBytes: bytes.length,
    gzipBytes: gzipSync(bytes, { level: 9 }).length,
  };
}
