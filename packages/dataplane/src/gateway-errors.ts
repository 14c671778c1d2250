import { familyOf, isDecantError, toDecantError } from '@decant/core';

import type { UploadFault } from './object-errors.ts';
import type { S3Error } from './s3-xml.ts';

interface S3Failure extends S3Error {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
}

const UPLOAD_FAULTS: Readonly<Record<UploadFault, readonly [number, string]>> = {
  'upload-unknown': [404, 'NoSuchUpload'],
  'part-number': [400, 'InvalidArgument'],
  'part-missing': [400, 'InvalidPart'],
  'part-changed': [400, 'InvalidPart'],
  'part-list': [400, 'MalformedXML'],
  'part-order': [400, 'InvalidPartOrder'],
  'part-cut': [400, 'IncompleteBody'],
};

/** Any failure as S3 would say it. What is not one of ours says nothing of its inside. */
export function s3ErrorOf(failure: unknown): S3Failure {
  if (failure instanceof RangeError) {
    const size = typeof failure.cause === 'number' ? String(failure.cause) : '*';
    const headers = size === '*' ? {} : { 'content-range': `bytes */${size}` };
    return { status: 416, code: 'InvalidRange', message: 'The requested range is not inside the object.', headers };
  }
  const error = isDecantError(failure) ? failure : toDecantError(failure);
  const { message } = error;
  switch (error.code) {
    case 'OBJECT_NOT_FOUND':
      return { status: 404, code: 'NoSuchKey', message };
    case 'OBJECT_KEY_INVALID':
      return { status: 400, code: 'InvalidURI', message };
    case 'SIGN_URL_EXPIRED':
      return { status: 403, code: 'AccessDenied', message: 'Request has expired' };
    case 'SIGN_URL_INVALID':
      return { status: 403, code: 'SignatureDoesNotMatch', message };
    case 'UPLOAD_INVALID': {
      const [status, code] = UPLOAD_FAULTS[error.details['reason'] as UploadFault] ?? [400, 'InvalidRequest'];
      return { status, code, message };
    }
    case 'LIMIT_EXCEEDED':
      return { status: 400, code: 'EntityTooLarge', message };
    case 'DISK_FULL':
      return { status: 507, code: 'InsufficientStorage', message: 'The store has no space left.' };
    case 'CONFLICT':
      return { status: 409, code: 'OperationAborted', message };
    case 'USAGE':
      return { status: 501, code: 'NotImplemented', message };
    default: {
      const unavailable = familyOf(error.code) === 'unavailable';
      return unavailable
        ? { status: 503, code: 'ServiceUnavailable', message: 'The store cannot answer now.' }
        : { status: 500, code: 'InternalError', message: 'The store failed.' };
    }
  }
}
