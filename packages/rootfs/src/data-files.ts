import type { BlobReader, FileContent } from './tree.ts';

/** How the data of a file lies in the image. */
export interface DataPlacement {
  /** Where it begins, in blocks of 4,096 bytes from the start of the image. */
  readonly firstBlock: number;
  /** Whether a cut comes before it. */
  readonly cut: boolean;
  /** Cuts inside it, after so many stored pages each; undefined for none. */
  readonly cutEveryPages: number | undefined;
}

/** What is written of a file. */
export interface DataFile extends DataPlacement {
  readonly file: FileContent;
}

const NO_CUT = 0;
const CUT = 1;
const OTHER = 0xffff_ffff;

/**
 * The files of an image in the order of their data, without what would keep the tree in memory: 29 bytes each, and for
 * those that are not one run of a blob their extents.
 */
export class DataFiles implements Iterable<DataFile> {
  readonly #firstBlock: Uint32Array;
  readonly #cut: Uint8Array;
  /** 0 for no cuts inside. */
  readonly #cutEveryPages: Uint32Array;
  readonly #sizeBytes: Float64Array;
  /** Number of the blob, or OTHER, and where the one run begins in it. */
  readonly #blob: Uint32Array;
  readonly #blobOffset: Float64Array;
  readonly #blobs: BlobReader[] = [];
  readonly #numbers = new Map<BlobReader, number>();
  readonly #others = new Map<number, FileContent>();
  #count = 0;

  constructor(most: number) {
    this.#firstBlock = new Uint32Array(most);
    this.#cut = new Uint8Array(most);
    this.#cutEveryPages = new Uint32Array(most);
    this.#sizeBytes = new Float64Array(most);
    this.#blob = new Uint32Array(most);
    this.#blobOffset = new Float64Array(most);
  }

  /** @throws RangeError for more files than there is room for */
  add({ sizeBytes, extents }: FileContent, { firstBlock, cut, cutEveryPages }: DataPlacement): void {
    const i = this.#count;
    if (i >= this.#firstBlock.length) throw new RangeError('there are more files than were announced');
    this.#count++;
    this.#firstBlock[i] = firstBlock;
    this.#cut[i] = cut ? CUT : NO_CUT;
    this.#cutEveryPages[i] = cutEveryPages ?? 0;
    this.#sizeBytes[i] = sizeBytes;
    const [only] = extents;
    if (extents.length === 1 && only!.fileOffset === 0 && only!.lengthBytes === sizeBytes) {
      this.#blob[i] = this.#numberOf(only!.blob);
      this.#blobOffset[i] = only!.blobOffset;
    } else {
      this.#blob[i] = OTHER;
      this.#others.set(i, { sizeBytes, extents });
    }
  }

  #numberOf(blob: BlobReader): number {
    let number = this.#numbers.get(blob);
    if (number === undefined) {
      number = this.#blobs.push(blob) - 1;
      this.#numbers.set(blob, number);
    }
    return number;
  }

  *[Symbol.iterator](): Generator<DataFile, void, undefined> {
    for (let i = 0; i < this.#count; i++) {
      const every = this.#cutEveryPages[i]!;
      yield {
        file: this.#others.get(i) ?? this.#oneRun(i),
        firstBlock: this.#firstBlock[i]!,
        cut: this.#cut[i] === CUT,
        cutEveryPages: every === 0 ? undefined : every,
      };
    }
  }

  #oneRun(i: number): FileContent {
    const sizeBytes = this.#sizeBytes[i]!;
    const blob = this.#blobs[this.#blob[i]!]!;
    return { sizeBytes, extents: [{ fileOffset: 0, lengthBytes: sizeBytes, blob, blobOffset: this.#blobOffset[i]! }] };
  }
}
