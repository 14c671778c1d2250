import { readFile, readlink } from 'node:fs/promises';

import { errnoOf } from '../errors.ts';

/**
 * When a process began, in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)), which tells it from a later
 * process with its number; undefined when it has ended, be it as a zombie. Where there is no /proc it is `0` for every
 * process that lives.
 */
export async function processStart(pid: number): Promise<string | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'latin1');
    // The second field is the name in parentheses and may hold anything; the third begins after the last one.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return startWithoutProc(pid);
    throw error;
  }
}

function startWithoutProc(pid: number): string | undefined {
  if (process.platform === 'linux') return undefined;
  try {
    process.kill(pid, 0);
    return '0';
  } catch (error) {
    return errnoOf(error) === 'EPERM' ? '0' : undefined;
  }
}

/** Identifies this boot of the machine: after another one no earlier process lives. Zeros where there is no /proc. */
export async function bootId(): Promise<string> {
  const text = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '0'.repeat(36));
  return text.trim();
}

/** Identifies the namespace that process ids of this process are valid in; `0` where there is no /proc. */
export async function processNamespace(): Promise<string> {
  const link = await readlink('/proc/self/ns/pid').catch(() => '');
  return /\d+/.exec(link)?.[0] ?? '0';
}
