/** Writes the bytes of the hashing kernel into the sources: `pnpm run kernel`. A unit test compares them. */
import { writeFile } from 'node:fs/promises';

import { buildKernel } from '../src/kernel/build.ts';

const base64 = Buffer.from(buildKernel()).toString('base64');
const lines = [
  '/**',
  ' * The hashing kernel, a WebAssembly module in base64. Generated from build.ts beside it by `pnpm run kernel`;',
  ' * do not edit.',
  ' */',
  '// oxfmt-ignore',
  'export const KERNEL_BASE64 =',
  `  '${base64}';`,
];
await writeFile(new URL('../src/kernel/kernel-bytes.ts', import.meta.url), `${lines.join('\n')}\n`);
