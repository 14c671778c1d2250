import { createHash } from 'node:crypto';

import { DecantError, quote } from '@decant/core';

/** The 64 digits of a `sha256:` digest. @throws OCI_INVALID, or OCI_UNSUPPORTED for another algorithm. */
export function digestHex(digest: string): string {
  const match = /^sha256:([0-9a-f]{64})$/.exec(digest);
  if (match !== null) return match[1]!;
  if (/^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-zA-Z=_-]+$/.test(digest) && !digest.startsWith('sha256:')) {
    throw new DecantError('OCI_UNSUPPORTED', `The digest algorithm of ${quote(digest)} is not supported.`, {
      hint: 'Only sha256 digests are read.',
    });
  }
  throw new DecantError('OCI_INVALID', `Not a digest: ${quote(digest)}.`);
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/**
 * Passes bytes on while it checks them: more than `sizeBytes` fail at once, fewer or others at the end.
 * @throws OCI_DIGEST_MISMATCH
 */
export async function* checked(
  source: AsyncIterable<Uint8Array>,
  expected: { readonly digest: string; readonly sizeBytes?: number | undefined; readonly what: string },
): AsyncGenerator<Uint8Array, void, undefined> {
  const hash = createHash('sha256');
  let total = 0;
  for await (const piece of source) {
    total += piece.length;
    if (expected.sizeBytes !== undefined && total > expected.sizeBytes) throw wrongSize(expected, 'more than ', total);
    hash.update(piece);
    yield piece;
  }
  if (expected.sizeBytes !== undefined && total !== expected.sizeBytes) throw wrongSize(expected, '', total);
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== expected.digest) {
    throw new DecantError('OCI_DIGEST_MISMATCH', `${expected.what} hashes to ${found} and not to ${expected.digest}.`, {
      details: { expected: expected.digest, found },
      hint: 'The image is damaged or was changed; get it again.',
    });
  }
}

function wrongSize(
  expected: { readonly digest: string; readonly sizeBytes?: number | undefined; readonly what: string },
  more: string,
  total: number,
): DecantError {
  const has = more === '' ? `${total}` : `${more}${expected.sizeBytes}`;
  return new DecantError(
    'OCI_DIGEST_MISMATCH',
    `${expected.what} has ${has} bytes and ${expected.sizeBytes} were declared.`,
    { details: { digest: expected.digest, sizeBytes: expected.sizeBytes } },
  );
}
