import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, it } from 'vitest';

import { fakeClock } from './clock.ts';
import { mountsBelow, temporaryDirectory } from './temporary-directory.ts';

it('removes a temporary directory with what is in it', async () => {
  let path: string;
  {
    await using folder = await temporaryDirectory();
    path = folder.path;
    writeFileSync(join(path, 'file'), 'x');
    expect(existsSync(join(path, 'file'))).toBe(true);
  }
  expect(existsSync(path)).toBe(false);
});

it('lists mounts below a folder, the last mounted first, with escaped names', () => {
  const mountinfo = [
    '21 1 254:0 / / rw - ext4 /dev/vda rw',
    '40 21 0:40 / /tmp/a rw - tmpfs tmpfs rw',
    '41 40 0:41 / /tmp/a/b\\040c rw - tmpfs tmpfs rw',
    '42 21 0:42 / /tmp/ab rw - tmpfs tmpfs rw',
    '',
  ].join('\n');
  expect(mountsBelow('/tmp/a', mountinfo)).toEqual(['/tmp/a/b c', '/tmp/a']);
  expect(mountsBelow('/tmp/none', mountinfo)).toEqual([]);
});

it('has a clock that moves only when it is told to', () => {
  const clock = fakeClock(1000);
  clock.advance(250);
  expect(clock.now()).toBe(1250);
  expect(() => clock.advance(-1)).toThrow(RangeError);
});
