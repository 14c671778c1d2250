import { DecantError } from '@decant/core';

import { lastLines, type RunTool } from './run-tool.ts';

/**
 * Has `e2fsck -fn` check an ext4 image, which it does not change.
 * @throws ROOTFS_INVALID with the tool's last lines, PROCESS_MISSING
 */
export async function checkExt4(
  file: string,
  runTool: RunTool,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const result = await runTool('e2fsck', ['-fn', file], { readable: [file], signal: options.signal });
  if (result.exitCode === 0) return;
  throw new DecantError('ROOTFS_INVALID', `e2fsck finds the filesystem broken: ${lastLines(result)}`, {
    details: { exitCode: result.exitCode, lastLines: lastLines(result) },
  });
}
