import { DecantError, quote, type RootfsFormat } from '@decant/core';
import { DEFAULT_OCI_LIMITS, type OciLimits } from '@decant/oci';
import { checkExt4Options, DEFAULT_FLATTEN_LIMITS, type Ext4Options, type FlattenLimits } from '@decant/rootfs';

/** What can be asked of the filesystem of an image that is made. */
export interface FilesystemRequest {
  readonly format: RootfsFormat;
  /** Bytes of the writable disk the image asks for; 0 or absent when nothing is said. It is the size of an ext4 image. */
  readonly diskBytes?: number | undefined;
  /** Only for `ext4`: the label, the UUID, and bytes to leave free instead of a size. */
  readonly ext4?: Pick<Ext4Options, 'freeBytes' | 'label' | 'uuid'> | undefined;
  /**
   * Seconds since 1970: later modification times are stored as this one, as SOURCE_DATE_EPOCH has it. Without it
   * none is changed; those in a disk image (`raw:`) never are.
   */
  readonly sourceDateEpoch?: number | undefined;
  /** Bounds on what an image may make decant do, instead of the default ones. */
  readonly limits?: ImageLimits | undefined;
}

/** `layerBytes` bounds each layer and all of them together. */
export type ImageLimits = Partial<OciLimits & FlattenLimits>;

const LIMIT_NAMES = [...new Set([...Object.keys(DEFAULT_OCI_LIMITS), ...Object.keys(DEFAULT_FLATTEN_LIMITS)])].sort();

/** What publishing takes over of a request. @throws USAGE before any work for what no filesystem can be */
export function filesystemFacts({ format, diskBytes = 0, ext4, sourceDateEpoch, limits = {} }: FilesystemRequest) {
  checkLimits(limits);
  if (ext4 !== undefined && format !== 'ext4') {
    throw new DecantError('USAGE', 'A label, a UUID and free room can be given to ext4 images only.', {
      hint: 'Leave them out, or make an image without --streaming.',
    });
  }
  if (format === 'ext4') checkExt4Options({ ...ext4, ...(diskBytes === 0 ? {} : { diskBytes }) });
  if (sourceDateEpoch !== undefined && !(Number.isSafeInteger(sourceDateEpoch) && sourceDateEpoch >= 0)) {
    throw new DecantError('USAGE', `Not a source date: ${sourceDateEpoch}.`, {
      hint: 'Give whole seconds since 1970.',
    });
  }
  return { format, diskBytes, ext4, sourceDateEpoch, limits };
}

function checkLimits(limits: Readonly<Record<string, number | undefined>>): void {
  for (const [name, value] of Object.entries(limits)) {
    if (LIMIT_NAMES.includes(name) && Number.isSafeInteger(value) && value! > 0) continue;
    throw new DecantError('USAGE', `Not a limit: ${quote(name)} of ${value}.`, {
      hint: `Give one of ${LIMIT_NAMES.join(', ')} a whole number.`,
    });
  }
}
