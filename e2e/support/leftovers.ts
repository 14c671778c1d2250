import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

import { output } from './programs.ts';

/** Processes, mounts and loop devices that have this text in their arguments or paths, as lines for people. */
export async function traces(text: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.includes(text)) found.push(`process ${pid}: ${command.replaceAll('\0', ' ')}`);
  }
  for (const line of (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')) {
    if (line.includes(text)) found.push(`mount: ${line}`);
  }
  for (const line of (await output('losetup', ['--list', '--noheadings'])).split('\n')) {
    if (line.includes(text)) found.push(`loop device: ${line}`);
  }
  return found;
}

/** What is still there when the kernel has had up to a minute to clear up. */
export async function lastingTraces(text: string): Promise<string[]> {
  let found = await traces(text);
  for (let round = 0; found.length > 0 && round < 300; round++) {
    await sleep(200);
    found = await traces(text);
  }
  return found;
}

/** Pid of the process whose last arguments are these. */
export async function pidOf(text: string): Promise<string> {
  for (let round = 0; round < 600; round++) {
    for (const pid of await readdir('/proc')) {
      if (!/^\d+$/.test(pid)) continue;
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (command === `${text.replaceAll(' ', '\0')}\0`) return pid;
    }
    await sleep(100);
  }
  throw new Error(`no process is ${text}`);
}
