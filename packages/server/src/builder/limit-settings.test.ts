import { describe, expect, it } from 'vitest';

import { parseBuilderLimits } from './limit-settings.ts';

describe('limits as operators write them', () => {
  it('are bytes, seconds and numbers by their names', () => {
    const texts = ['memory=2G', 'time=90', 'cpus=1.5', 'running=4', 'log=64K', 'running=8'];
    expect(parseBuilderLimits(texts)).toEqual({
      memoryBytes: 2 * 1024 ** 3,
      wallMs: 90_000,
      cpus: 1.5,
      running: 8,
      logBytes: 65_536,
    });
    expect(parseBuilderLimits([])).toEqual({});
  });

  it('are refused by the text at fault', () => {
    for (const text of [
      'memory',
      'memory=',
      'memory=x',
      'time=-1',
      'time=0',
      'cpus=NaN',
      'toString=1',
      'none=1',
      '=1',
    ]) {
      expect(() => parseBuilderLimits([text])).toThrow(expect.objectContaining({ code: 'USAGE' }));
    }
  });
});
