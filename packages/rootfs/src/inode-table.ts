import { ENTRY_TYPES, type NodeKind } from './erofs-format.ts';
import type { ReadInode } from './erofs-inode.ts';

const KINDS = new Map(Object.entries(ENTRY_TYPES).map(([kind, type]) => [type, kind as NodeKind]));
const FIRST_CAPACITY = 1024;

/** A run of file data in blocks of its own, and the inode it belongs to. */
export interface DataRun {
  readonly inode: number;
  readonly imageOffset: number;
  readonly lengthBytes: number;
}

/**
 * What is known of the inodes of an image while it is checked, numbered in the order they were found: some 100 bytes each and
 * 24 a run of data, where an object with everything that was read would be ten times that.
 */
export class InodeTable {
  readonly #numbers = new Map<number, number>();
  #nid = new Float64Array(FIRST_CAPACITY);
  #parentNid = new Float64Array(FIRST_CAPACITY);
  #offset = new Float64Array(FIRST_CAPACITY);
  #end = new Float64Array(FIRST_CAPACITY);
  #type = new Uint8Array(FIRST_CAPACITY);
  #links = new Uint32Array(FIRST_CAPACITY);
  #names = new Uint32Array(FIRST_CAPACITY);
  #subdirectories = new Uint32Array(FIRST_CAPACITY);
  #runs = new Float64Array(3 * FIRST_CAPACITY);
  #runCount = 0;

  get size(): number {
    return this.#numbers.size;
  }

  find(nid: number): number | undefined {
    return this.#numbers.get(nid);
  }

  /** Takes an inode that is not there yet and returns its number. */
  add(inode: ReadInode, parentNid: number): number {
    const number = this.#numbers.size;
    if (number === this.#nid.length) this.#grow();
    this.#numbers.set(inode.nid, number);
    this.#nid[number] = inode.nid;
    this.#parentNid[number] = parentNid;
    this.#offset[number] = inode.offset;
    this.#end[number] = inode.end;
    this.#type[number] = ENTRY_TYPES[inode.kind];
    this.#links[number] = inode.links;
    if (inode.kind === 'file') {
      const { ranges } = inode;
      const count = inode.inline ? ranges.length - 1 : ranges.length;
      for (let i = 0; i < count; i++) this.#addRun(number, ranges[i]!.imageOffset, ranges[i]!.lengthBytes);
    }
    return number;
  }

  #addRun(inode: number, imageOffset: number, lengthBytes: number): void {
    const at = 3 * this.#runCount++;
    if (at === this.#runs.length) this.#runs = grown(this.#runs, Float64Array);
    this.#runs[at] = inode;
    this.#runs[at + 1] = imageOffset;
    this.#runs[at + 2] = lengthBytes;
  }

  #grow(): void {
    this.#nid = grown(this.#nid, Float64Array);
    this.#parentNid = grown(this.#parentNid, Float64Array);
    this.#offset = grown(this.#offset, Float64Array);
    this.#end = grown(this.#end, Float64Array);
    this.#type = grown(this.#type, Uint8Array);
    this.#links = grown(this.#links, Uint32Array);
    this.#names = grown(this.#names, Uint32Array);
    this.#subdirectories = grown(this.#subdirectories, Uint32Array);
  }

  kind(number: number): NodeKind {
    return KINDS.get(this.#type[number]!)!;
  }

  /** Of the inode, in bytes from the start of the image. */
  offset(number: number): number {
    return this.#offset[number]!;
  }

  /** First byte behind it and what belongs to it. */
  end(number: number): number {
    return this.#end[number]!;
  }

  /** Of the directory by which it was found first. */
  parentNid(number: number): number {
    return this.#parentNid[number]!;
  }

  addName(number: number): void {
    this.#names[number]!++;
  }

  addSubdirectory(number: number): void {
    this.#subdirectories[number]!++;
  }

  /** The link count it says, and the one it should have. */
  links(number: number): { readonly actual: number; readonly expected: number } {
    const isDirectory = this.#type[number] === ENTRY_TYPES.directory;
    const expected = isDirectory ? 2 + this.#subdirectories[number]! : this.#names[number]!;
    return { actual: this.#links[number]!, expected };
  }

  /** All numbers, by where the inodes lie. */
  inOrderOfOffsets(): Uint32Array {
    const numbers = Uint32Array.from({ length: this.size }, (_, i) => i);
    return numbers.sort((a, b) => this.#offset[a]! - this.#offset[b]!);
  }

  /** The runs of all files. */
  *dataRuns(): Generator<DataRun, void, undefined> {
    for (let i = 0; i < this.#runCount; i++) {
      const at = 3 * i;
      yield { inode: this.#runs[at]!, imageOffset: this.#runs[at + 1]!, lengthBytes: this.#runs[at + 2]! };
    }
  }
}

function grown<T extends Float64Array | Uint32Array | Uint8Array>(table: T, type: new (length: number) => T): T {
  const larger = new type(table.length * 2);
  larger.set(table);
  return larger;
}
