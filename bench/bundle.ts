import { join } from 'node:path';

import { bundleForBrowser } from '../scripts/bundle.ts';
import { ROOT } from '../scripts/workspace.ts';
import type { BenchResult } from './report.ts';

/** What a web page pays for all of a package's main entry, minified, in units of 1,000 bytes. */
export async function benchBundle(): Promise<BenchResult> {
  const cas = await bundleForBrowser(join(ROOT, 'packages/cas/src/index.ts'));
  return {
    name: 'bundle',
    short: false,
    input: { entry: '@decant/cas', of: 'every export of the main entry, with what it imports' },
    fields: { cas_minified_kb: cas.minifiedBytes / 1000, cas_gzip_kb: cas.gzipBytes / 1000 },
    goals: { cas_minified_kb: { most: 125 }, cas_gzip_kb: { most: 45 } },
    absolute: {},
  };
}
