import { BuildahReader } from '@decant/builder-local';
import type { BuildCellResult } from '@decant/jail';
import { describe, expect, it } from 'vitest';

import { SCRIPT_STATUS } from './build-script.ts';
import { cellError } from './cell-error.ts';
import { DEFAULT_BUILDER_LIMITS } from './limits.ts';

const LIMITS = {
  ...DEFAULT_BUILDER_LIMITS,
  ...{ memoryBytes: 1001, processes: 1002, cpuMs: 1003, imageBytes: 1004, diskBytes: 1005 },
};

function errorOf(result: Partial<BuildCellResult>, lines: readonly string[] = []) {
  const reader = new BuildahReader();
  for (const line of lines) for (const event of reader.line(line, 'stderr')) void event;
  return cellError({ exitCode: 137, limit: undefined, ...result }, 'buildah', reader, LIMITS);
}

describe('what ended a confined build', () => {
  it.each([
    ['memory', 'BUILD_OUT_OF_MEMORY', { limit: 1001 }],
    ['processes', 'BUILD_PROCESSES', { limit: 1002 }],
    ['cpu-time', 'BUILD_CPU_TIME', { limitMs: 1003 }],
    ['output', 'BUILD_IMAGE_BYTES', { limit: 1004 }],
    ['disk', 'BUILD_OUT_OF_DISK', { limit: 1005 }],
  ] as const)('is the limit of %s, in its own code and with its bound', (limit, code, details) => {
    for (const exitCode of [0, 1, 137]) {
      const error = errorOf({ limit, exitCode });
      expect(error).toMatchObject({ code, details });
      expect(error?.message).toContain(String(Object.values(details)[0]));
    }
  });

  it('is nothing when the image was made', () => {
    expect(errorOf({ exitCode: 0 }, ['error: said by a step'])).toBeUndefined();
  });

  it('is the part of the work that failed, when that was not a step', () => {
    expect(errorOf({ exitCode: SCRIPT_STATUS.context }, ['tar: short'])).toMatchObject({
      code: 'BUILD_CONTEXT_INVALID',
      message: expect.stringContaining('tar: short') as string,
    });
    expect(errorOf({ exitCode: SCRIPT_STATUS.base }, ['Error: no such layout'])).toMatchObject({
      code: 'BUILD_BASE_UNAVAILABLE',
    });
    expect(errorOf({ exitCode: SCRIPT_STATUS.image }, ['Error: empty export'])).toMatchObject({
      code: 'BUILD_FAILED',
      hint: expect.stringContaining('no files at all') as string,
    });
  });

  it('is the disk, also when only the engine says that it is full', () => {
    const said = 'Error: committing container: write /build/storage/x: no space left on device';
    expect(errorOf({ exitCode: 125 }, [said])).toMatchObject({ code: 'BUILD_OUT_OF_DISK', details: { limit: 1005 } });
  });
});
