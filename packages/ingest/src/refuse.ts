import { DecantError } from '@decant/core';

/** The error of an upload that is not admitted: the builder's fault, final. */
export function refused(
  problem: string,
  details: Readonly<Record<string, unknown>> = {},
  cause?: unknown,
): DecantError {
  return new DecantError('INGEST_REFUSED', `The upload was not admitted: ${problem}`, {
    hint: 'Nothing of it is visible. Build and upload the image again.',
    details,
    cause,
  });
}
