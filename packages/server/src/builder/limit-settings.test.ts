import { describe, expect, it } from 'vitest';

import { parseRegistryLimits } from '../registry/registry-settings.ts';
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

  it('are of the registry, too', () => {
    const texts = ['blob=10G', 'uploads=5', 'grace=60', 'upload-age=3600'];
    const limits = { blobBytes: 10 * 1024 ** 3, openUploads: 5, uploadAgeMs: 3_600_000 };
    expect(parseRegistryLimits(texts)).toEqual({ limits, graceMs: 60_000 });
    expect(() => parseRegistryLimits(['memory=1G'])).toThrow('Not a limit of the registry');
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
