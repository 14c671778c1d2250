import { DecantError } from '@decant/core';

import type { Extent, FileContent } from './tree.ts';

/** Reads one file piecewise, holes as zeros, walking its extents once from the front. */
export class FileCursor {
  readonly #file: FileContent;
  #next = 0;

  constructor(file: FileContent) {
    this.#file = file;
  }

  /** Bytes from `position` up to the next extent: how many zeros follow. 0 inside an extent. */
  zerosAt(position: number): number {
    const extent = this.#extentAt(position);
    if (extent === undefined) return this.#file.sizeBytes - position;
    return Math.max(0, extent.fileOffset - position);
  }

  /** Bytes from `position`, inside an extent, to its end. */
  dataAt(position: number): number {
    const extent = this.#extentAt(position);
    return extent === undefined ? 0 : extent.fileOffset + extent.lengthBytes - position;
  }

  /**
   * Fills `target` with the bytes from `position`; calls must not go backwards.
   * @throws INTERNAL when a layer's scratch file is shorter than the extent says
   */
  read(target: Uint8Array, position: number): void {
    let done = 0;
    while (done < target.length) {
      const at = position + done;
      const extent = this.#extentAt(at);
      const gap = extent === undefined ? target.length - done : extent.fileOffset - at;
      if (extent === undefined || gap > 0) {
        const zeros = Math.min(gap, target.length - done);
        target.fill(0, done, done + zeros);
        done += zeros;
        continue;
      }
      const inside = at - extent.fileOffset;
      const wanted = Math.min(extent.lengthBytes - inside, target.length - done);
      readFully(extent, target.subarray(done, done + wanted), inside);
      done += wanted;
    }
  }

  #extentAt(position: number): Extent | undefined {
    for (;;) {
      const extent = this.#file.extents[this.#next];
      if (extent === undefined || extent.fileOffset + extent.lengthBytes > position) return extent;
      this.#next++;
    }
  }
}

function readFully(extent: Extent, target: Uint8Array, inside: number): void {
  let done = 0;
  while (done < target.length) {
    const position = extent.blobOffset + inside + done;
    const count = extent.blob.readSync(target.subarray(done), position);
    if (count <= 0) {
      throw new DecantError('INTERNAL', `The layer data of a file ends at byte ${position}, before the file does.`);
    }
    done += count;
  }
}
