import { createHash } from 'node:crypto';

import { MAX_PARTS, type UploadedPart } from '@decant/core';

import { uploadInvalid } from './object-errors.ts';

/** @throws UPLOAD_INVALID unless it is 1 to 10,000. */
export function checkPartNumber(partNumber: number): void {
  if (!Number.isInteger(partNumber) || partNumber < 1 || partNumber > MAX_PARTS) {
    throw uploadInvalid('part-number', `Parts are numbered 1 to ${MAX_PARTS}.`);
  }
}

/** The parts of a completion in ascending order. @throws UPLOAD_INVALID for none, a number twice or out of bounds. */
export function sortParts(parts: readonly UploadedPart[]): UploadedPart[] {
  if (parts.length === 0) throw uploadInvalid('part-list', 'An upload is completed with at least one part.');
  const sorted = [...parts].sort((a, b) => a.partNumber - b.partNumber);
  let before = 0;
  for (const { partNumber } of sorted) {
    checkPartNumber(partNumber);
    if (partNumber === before) throw uploadInvalid('part-list', `Part ${partNumber} is listed twice.`);
    before = partNumber;
  }
  return sorted;
}

export function partMissing(partNumber: number) {
  return uploadInvalid('part-missing', `Part ${partNumber} has not been uploaded.`);
}

export function partChanged(partNumber: number) {
  return uploadInvalid('part-changed', `Part ${partNumber} is not the one that was uploaded last.`);
}

/** What a completion asks for, so that asking again can be told from asking for something else. */
export function fingerprintOf(key: string, sorted: readonly UploadedPart[]): string {
  const list = sorted.map(({ partNumber, etag }) => [partNumber, etag]);
  return createHash('sha256')
    .update(JSON.stringify([key, list]))
    .digest('hex');
}
