import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { resolveUser } from './user.ts';

const passwd =
  'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n9:x:77:78::/nine:/bin/sh\nbroken\n';
const group = 'root:x:0:\napp:x:1001:\nextra:x:2000:other,app\nalso:x:44:app\nbig:x:99999:app\n';

describe('the User of an image', () => {
  test.each([
    [undefined, { uid: 0, gid: 0, groups: [], home: '/root' }],
    ['', { uid: 0, gid: 0, groups: [], home: '/root' }],
    ['app', { uid: 1000, gid: 1001, groups: [44, 2000], home: '/home/app' }],
    ['1000', { uid: 1000, gid: 1001, groups: [44, 2000], home: '/home/app' }],
    ['app:extra', { uid: 1000, gid: 2000, groups: [], home: '/home/app' }],
    ['app:5', { uid: 1000, gid: 5, groups: [], home: '/home/app' }],
    ['4242', { uid: 4242, gid: 0, groups: [], home: '/' }],
    ['4242:4343', { uid: 4242, gid: 4343, groups: [], home: '/' }],
    ['9', { uid: 9, gid: 0, groups: [], home: '/' }],
    ['77', { uid: 77, gid: 78, groups: [], home: '/nine' }],
    ['app:44', { uid: 1000, gid: 44, groups: [], home: '/home/app' }],
  ])('%s', (spec, expected) => {
    expect(resolveUser(spec, passwd, group)).toEqual(expected);
  });

  test('has at most 1,024 groups', () => {
    const many = Array.from({ length: 2000 }, (_, i) => `g${i}:x:${i + 2000}:app\n`).join('');
    expect(resolveUser('app', passwd, many).groups).toHaveLength(1024);
  });

  test.each(['nobody', 'app:nogroup', '65536', '0:65536', '-1', ':5', '99999999999', 'app:-1'])(
    '%s is refused',
    (spec) => {
      expect(() => resolveUser(spec, passwd, group)).toThrow(expect.objectContaining({ code: 'JAIL_FAILED' }));
    },
  );

  test('whatever the files hold, ids stay in the range that is mapped', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string(), (spec, a, b) => {
        try {
          const { uid, gid, groups } = resolveUser(spec, `${passwd}${a}`, `${group}${b}`);
          return [uid, gid, ...groups].every((id) => Number.isInteger(id) && id >= 0 && id <= 65_535);
        } catch (error) {
          return (error as { code?: string }).code === 'JAIL_FAILED';
        }
      }),
    );
  });
});
