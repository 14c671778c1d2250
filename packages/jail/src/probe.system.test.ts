import { join } from 'node:path';

import { run } from '@decant/core/node';
import { expect, test } from 'vitest';

import { missingControllers } from './cgroup.ts';
import { probeJail } from './probe.ts';

const PROBE = `
const { probeJail } = await import(${JSON.stringify(join(import.meta.dirname, 'probe.ts'))});
console.log(JSON.stringify((await probeJail()).checks.find(({ name }) => name === 'control groups')));
`;
const isRoot = process.getuid?.() === 0;
const limited = isRoot && (await missingControllers()).length === 0;

test.skipIf(!limited)('[backend:native] says which control groups cannot be had, and that they can', async () => {
  const here = (await probeJail()).checks.find(({ name }) => name === 'control groups');
  expect(here).toEqual({ name: 'control groups', ok: true });
  const covered = async (how: string) => {
    const { stdout } = await run(
      'unshare',
      [
        ...['--mount', '--propagation', 'private', 'sh', '-c', `${how} && exec "$@"`, 'sh'],
        ...[process.execPath, '--conditions=@decant/source', '--input-type=module', '--eval', PROBE],
      ],
      { timeoutMs: 60_000 },
    );
    return JSON.parse(String(stdout)) as unknown;
  };
  const named = expect.stringMatching(/control groups memory, pids, cpu/);
  expect(await covered('mount -t tmpfs none /sys/fs/cgroup')).toMatchObject({
    ok: false,
    why: named,
  });
  const readOnly =
    'for at in $(grep " cgroup" /proc/mounts | cut -d" " -f2); do mount -o remount,bind,ro $at || exit 1; done';
  expect(await covered(readOnly)).toMatchObject({ ok: false, why: named });
});
