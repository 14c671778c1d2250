import { DecantError, quote, type ByteRange } from '@decant/core';

/** What is wrong with an upload, in `details.reason` of UPLOAD_INVALID. */
export type UploadFault =
  | 'upload-unknown'
  | 'part-number'
  | 'part-missing'
  | 'part-changed'
  | 'part-list'
  | 'part-order'
  | 'part-cut';

export function uploadInvalid(reason: UploadFault, message: string): DecantError {
  return new DecantError('UPLOAD_INVALID', message, { details: { reason } });
}

export function unknownUpload(): DecantError {
  return uploadInvalid('upload-unknown', 'There is no such upload: it was completed, aborted or has expired.');
}

export function objectNotFound(key: string): DecantError {
  return new DecantError('OBJECT_NOT_FOUND', `There is no object ${quote(key)}.`, { details: { key } });
}

/** The range itself, or the whole object. @throws RangeError when it is not inside. */
export function checkRange(range: ByteRange | undefined, sizeBytes: number): ByteRange {
  const { offset, lengthBytes } = range ?? { offset: 0, lengthBytes: sizeBytes };
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(lengthBytes) && offset >= 0 && lengthBytes >= 0;
  if (!whole || offset + lengthBytes > sizeBytes) {
    throw new RangeError(`bytes ${offset} to ${offset + lengthBytes} are not inside an object of ${sizeBytes} bytes`);
  }
  return { offset, lengthBytes };
}
