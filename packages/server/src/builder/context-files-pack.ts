import { createHash } from 'node:crypto';

import { CONTEXT_FILE_HEADER_BYTES, DecantError } from '@decant/core';

export interface PackedFile {
  readonly digest: string;
  /** Of the content, from the start of the pack. */
  readonly offset: number;
  readonly sizeBytes: number;
}

export interface PackReading {
  /** The bytes as they came, while they are read; throws as soon as something is not right. */
  readonly bytes: AsyncIterable<Uint8Array>;
  /** What the pack held; complete when the bytes have been read to their end. */
  readonly files: readonly PackedFile[];
}

/**
 * Checks a pack of context files (core, wire/context-files.ts) while it is stored.
 * @param sizeOf The size that a file of this digest must have; undefined when it is not wanted.
 * @throws USAGE for a pack that is cut, holds what was not asked for, or a file of another size; CONTEXT_FILE_MISMATCH for
 * content that does not have its digest. Both name the byte offset.
 */
export function readPack(
  source: AsyncIterable<Uint8Array>,
  sizeOf: (digest: string) => number | undefined,
): PackReading {
  const files: PackedFile[] = [];
  async function* bytes(): AsyncGenerator<Uint8Array, void> {
    const header = Buffer.alloc(CONTEXT_FILE_HEADER_BYTES);
    let headerFilled = 0;
    let offset = 0;
    let left = 0;
    let hash = createHash('sha256');
    let digest = '';
    const finish = () => {
      const actual = hash.digest('hex');
      const [at, size] = [offset - files.at(-1)!.sizeBytes, files.at(-1)!.sizeBytes];
      if (actual !== digest) {
        throw new DecantError(
          'CONTEXT_FILE_MISMATCH',
          `The ${size} bytes at offset ${at} do not have the digest they were sent under.`,
          { details: { expected: digest, actual, offset: at } },
        );
      }
      headerFilled = 0;
    };
    for await (const piece of source) {
      for (let at = 0; at < piece.length;) {
        if (headerFilled < header.length) {
          const part = piece.subarray(at, at + header.length - headerFilled);
          header.set(part, headerFilled);
          headerFilled += part.length;
          at += part.length;
          offset += part.length;
          if (headerFilled < header.length) continue;
          digest = header.toString('hex', 0, 32);
          const size = header.readBigUInt64BE(32);
          const expected = sizeOf(digest);
          if (expected === undefined || BigInt(expected) !== size) {
            const why = expected === undefined ? 'is not one of the context' : `must have ${expected} bytes`;
            throw new DecantError('USAGE', `The file at offset ${offset} of the pack ${why}.`, {
              details: { digest, offset },
            });
          }
          left = expected;
          hash = createHash('sha256');
          files.push({ digest, offset, sizeBytes: expected });
          if (left === 0) finish();
          continue;
        }
        const part = piece.subarray(at, at + left);
        hash.update(part);
        left -= part.length;
        at += part.length;
        offset += part.length;
        if (left === 0) finish();
      }
      yield piece;
    }
    if (headerFilled !== 0) {
      throw new DecantError('USAGE', `The pack ends at offset ${offset}, in the middle of a file.`, {
        details: { offset },
        retryable: true,
      });
    }
  }
  return { bytes: bytes(), files };
}
