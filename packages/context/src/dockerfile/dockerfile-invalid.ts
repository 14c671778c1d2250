import { DecantError } from '@decant/core';

/** The error of a Dockerfile that cannot be read, with the line (from 1) at fault. */
export function dockerfileInvalid(file: string, line: number, fault: string): DecantError {
  return new DecantError('DOCKERFILE_INVALID', `${file}, line ${line}: ${fault}.`, { details: { file, line } });
}
