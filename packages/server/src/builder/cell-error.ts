import { buildError, type BuildahReader } from '@decant/builder-local';
import { DecantError } from '@decant/core';
import type { BuildCellResult } from '@decant/jail';

import { SCRIPT_STATUS } from './build-script.ts';
import type { BuilderLimits } from './limits.ts';

/** What ended a confined build, in a code of its own for each limit; undefined when it made its image. */
export function cellError(
  { exitCode, limit }: BuildCellResult,
  engine: string,
  reader: BuildahReader,
  limits: BuilderLimits,
): DecantError | undefined {
  const report = reader.failure();
  const { lastLines } = report;
  const details = {
    lastLines,
    ...(report.command === undefined ? {} : { command: report.command, step: report.step }),
  };
  if (limit === 'memory') {
    return new DecantError('BUILD_OUT_OF_MEMORY', `The build needed more memory than ${limits.memoryBytes} bytes.`, {
      hint: 'Let its steps do less at a time, for example with fewer compilers in parallel.',
      details: { ...details, limit: limits.memoryBytes },
    });
  }
  if (limit === 'processes') {
    return new DecantError('BUILD_PROCESSES', `The build started more than ${limits.processes} processes.`, {
      details: { ...details, limit: limits.processes },
    });
  }
  if (limit === 'cpu-time') {
    return new DecantError('BUILD_CPU_TIME', `The build used more than ${limits.cpuMs} ms of processor time.`, {
      details: { ...details, limitMs: limits.cpuMs },
    });
  }
  if (limit === 'output') {
    return new DecantError('BUILD_IMAGE_BYTES', `The image has more than ${limits.imageBytes} bytes.`, {
      details: { limit: limits.imageBytes },
    });
  }
  const full = () =>
    new DecantError('BUILD_OUT_OF_DISK', `The build needed more disk than ${limits.diskBytes} bytes.`, {
      hint: 'Remove what a step no longer needs in the same step.',
      details: { ...details, limit: limits.diskBytes },
    });
  if (limit === 'disk') return full();
  if (exitCode === 0) return undefined;
  if (exitCode === SCRIPT_STATUS.context) {
    return new DecantError('BUILD_CONTEXT_INVALID', `The build context cannot be unpacked: ${lastLines.at(-1) ?? ''}`);
  }
  if (exitCode === SCRIPT_STATUS.base) {
    return new DecantError('BUILD_BASE_UNAVAILABLE', `A base image cannot be loaded: ${report.reason}`, { details });
  }
  if (exitCode === SCRIPT_STATUS.image) {
    return new DecantError('BUILD_FAILED', `The image cannot be written: ${report.reason}`, {
      hint: /empty export/i.test(report.reason) ? 'The image has no files at all; COPY something into it.' : undefined,
      details,
    });
  }
  const error = buildError(engine, report, '/build/work');
  return error.code === 'DISK_FULL' ? full() : error;
}
