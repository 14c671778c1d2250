import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

export interface TemporaryDirectory extends AsyncDisposable {
  readonly path: string;
}

/** A new empty folder for `await using`; what is mounted below it is unmounted, then it is removed with all it holds. */
export async function temporaryDirectory(prefix = 'decant-'): Promise<TemporaryDirectory> {
  const path = await mkdtemp(join(tmpdir(), prefix));
  return {
    path,
    async [Symbol.asyncDispose]() {
      await unmountBelow(path);
      await rm(path, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}

/** Mount points in a folder, deepest first, from the text of `/proc/self/mountinfo` (proc(5)). */
export function mountsBelow(folder: string, mountinfo: string): string[] {
  return mountinfo
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .map((field) =>
      field.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8))),
    )
    .filter((mount) => mount === folder || mount.startsWith(`${folder}/`))
    .toReversed();
}

/** Detaches every mount in a folder; does nothing where there is no `/proc`. */
export async function unmountBelow(folder: string): Promise<void> {
  const text = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  for (const mount of mountsBelow(folder, text)) {
    await promisify(execFile)('umount', ['--lazy', mount], { timeout: 10_000 });
  }
}
