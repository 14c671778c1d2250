import { DecantError, quote } from '@decant/core';

/** What can be asked of an ext4 filesystem. */
export interface Ext4Options {
  /** Size of the filesystem in bytes, rounded down to 4,096; default: what the tree needs and a little more. */
  readonly diskBytes?: number | undefined;
  /** Bytes that are to be free at least when the tree is in; not together with `diskBytes`. Default 0. */
  readonly freeBytes?: number | undefined;
  /** Up to 16 bytes of printable ASCII; default none. */
  readonly label?: string | undefined;
  /** Default: derived from the names and metadata of the tree. */
  readonly uuid?: string | undefined;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** Where blocks of 4,096 bytes and 32-bit numbers end. */
const MOST_BYTES = 16 * 2 ** 40;

/** @throws USAGE for what no ext4 filesystem can be */
export function checkExt4Options({ label = '', uuid, diskBytes, freeBytes }: Ext4Options): void {
  if (!/^[\x20-\x7e]{0,16}$/.test(label)) {
    throw new DecantError('USAGE', `Not a label of an ext4 filesystem: ${quote(label)}.`, {
      hint: 'Give up to 16 printable ASCII characters.',
    });
  }
  if (uuid !== undefined && !UUID.test(uuid)) {
    throw new DecantError('USAGE', `Not a UUID: ${quote(uuid)}.`, {
      hint: 'Write 32 hexadecimal digits in groups of 8-4-4-4-12.',
    });
  }
  checkBytes('disk size', diskBytes, 1);
  checkBytes('free room', freeBytes, 0);
  if (diskBytes !== undefined && freeBytes !== undefined) {
    throw new DecantError('USAGE', 'A filesystem of a given size has no room to be asked for.', {
      hint: 'Give either the size of the disk or the free room in it.',
    });
  }
}

function checkBytes(what: string, bytes: number | undefined, least: number): void {
  if (bytes === undefined || (Number.isSafeInteger(bytes) && bytes >= least && bytes <= MOST_BYTES)) return;
  throw new DecantError('USAGE', `Not a ${what} of an ext4 filesystem: ${bytes} bytes.`, {
    hint: `Give whole bytes from ${least} to 16 TiB.`,
  });
}
