import { describe, expect, test } from 'vitest';

import { checkExt4Options, type Ext4Options } from './ext4-options.ts';

describe('checkExt4Options', () => {
  test.each<Ext4Options>([
    {},
    { label: '' },
    { label: 'sixteen letters!' },
    { uuid: '12345678-1234-4234-8234-123456789ABC', freeBytes: 0 },
    { diskBytes: 1 },
  ])('takes %j', (options) => {
    expect(() => checkExt4Options(options)).not.toThrow();
  });

  test.each<Ext4Options>([
    { label: 'seventeen letters' },
    { label: 'a\nb' },
    { label: 'é' },
    { uuid: '' },
    { uuid: 'random' },
    { uuid: '123456781234423482341234567890ab' },
    { uuid: '12345678-1234-4234-8234-123456789abg' },
    { diskBytes: 0 },
    { diskBytes: -1 },
    { diskBytes: 1.5 },
    { diskBytes: Number.NaN },
    { diskBytes: 2 ** 45 },
    { freeBytes: -1 },
    { freeBytes: Number.POSITIVE_INFINITY },
    { diskBytes: 4096, freeBytes: 0 },
  ])('refuses %j', (options) => {
    expect(() => checkExt4Options(options)).toThrow(
      expect.objectContaining({ code: 'USAGE', hint: expect.any(String) as string }),
    );
  });
});
