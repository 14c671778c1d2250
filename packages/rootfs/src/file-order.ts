import { KIB, MIB, PAGE_BYTES, roundUp } from '@decant/core';

import type { Cooperation } from './cooperate.ts';
import type { PlacedFile } from './erofs-layout.ts';
import { FileCursor } from './file-bytes.ts';
import { GroupCutter } from './file-groups.ts';
import type { ByteString, FileNode } from './tree.ts';

/** A file in image order. */
export interface DataItem {
  readonly placed: PlacedFile;
  /** Whether a cut comes before it. */
  readonly cut: boolean;
  /** Cuts inside it, after so many stored pages each; undefined for none. */
  readonly cutEveryPages: number | undefined;
}

/** Files whose addresses move together. It begins with a cut. */
export interface Section {
  readonly items: readonly DataItem[];
  readonly pages: number;
}

/** A large file, or a group of small ones: what begins with a cut. */
interface Unit {
  readonly files: PlacedFile[];
  /** Of the first file's name, in [0, 1). */
  readonly fraction: number;
  pages: number;
}

/** A file of at least this many stored pages begins with a cut of its own. */
const LARGE_FILE_PAGES = (128 * KIB) / PAGE_BYTES;
/**
 * Large programs and libraries are read in bits at a start, and change as a whole from version to version: pieces of one
 * size, smaller than the content would cut, waste least of the first and lose nothing by the second.
 */
const LARGE_PROGRAM_PAGES = (4 * MIB) / PAGE_BYTES;
const PROGRAM_PIECE_PAGES = (240 * KIB) / PAGE_BYTES;
/** No section ends before the first; then one ends once in so many pages on average. */
const SECTION_MIN_PAGES = (4 * MIB) / PAGE_BYTES;
const SECTION_MEAN_PAGES = (8 * MIB) / PAGE_BYTES;
/** Sections begin at multiples of this, with a hole of at least the second before them, the least the chunker makes one of. */
const SECTION_GRID_PAGES = MIB / PAGE_BYTES;
const LEAST_HOLE_PAGES = (64 * KIB) / PAGE_BYTES;

/** The page where a section begins when the one before it ends before page `end`. */
export function sectionAfter(end: number): number {
  return roundUp(end + LEAST_HOLE_PAGES, SECTION_GRID_PAGES);
}

export interface OrderOptions {
  /** The package that a file belongs to, as far as there is one. */
  readonly owners: ReadonlyMap<FileNode, ByteString>;
  /** Two numbers in [0, 1) from the names of a file and of its directory. */
  readonly fractions: (file: PlacedFile) => readonly [group: number, section: number];
  readonly cooperation: Cooperation;
}

/**
 * Puts the files with data in image order: those of packages by package and path, then all others by path. So what belongs
 * together lies together: a package that is added or upgraded changes its own groups, and what belongs to no package (one's
 * own programs, most often) moves nothing of what does. Sections leave room behind them, so that a file that grows moves
 * the addresses of its section only.
 */
export async function orderFiles(files: readonly PlacedFile[], options: OrderOptions): Promise<Section[]> {
  const { owners, fractions, cooperation } = options;
  const ordered = files
    .filter(({ pages }) => pages > 0)
    .map((placed) => ({ placed, owner: owners.get(placed.inode.node) }))
    .sort((a, b) => compareOwners(a.owner, b.owner));
  const units: Unit[] = [];
  const cutter = new GroupCutter();
  let group: Unit | undefined;
  let ownerBefore: ByteString | undefined;
  for (const { placed, owner } of ordered) {
    await cooperation.step();
    const { pages } = placed;
    const [groupFraction, fraction] = fractions(placed);
    if (pages >= LARGE_FILE_PAGES) {
      units.push({ files: [placed], fraction, pages });
      continue;
    }
    const begins = cutter.begins(pages, groupFraction, owner === ownerBefore);
    ownerBefore = owner;
    if (begins || group === undefined) {
      group = { files: [placed], fraction, pages };
      units.push(group);
    } else {
      group.files.push(placed);
      group.pages += pages;
    }
  }
  return inSections(units);
}

function inSections(units: readonly Unit[]): Section[] {
  const sections: { items: DataItem[]; pages: number }[] = [];
  let section: { items: DataItem[]; pages: number } | undefined;
  for (const { files, fraction, pages } of units) {
    const ends = section !== undefined && section.pages >= SECTION_MIN_PAGES && fraction < pages / SECTION_MEAN_PAGES;
    if (section === undefined || ends) sections.push((section = { items: [], pages: 0 }));
    const cutEveryPages = pages >= LARGE_PROGRAM_PAGES && isProgram(files[0]!) ? PROGRAM_PIECE_PAGES : undefined;
    for (const [i, placed] of files.entries()) section.items.push({ placed, cut: i === 0, cutEveryPages });
    section.pages += pages;
  }
  return sections;
}

/** Whether it begins as programs and libraries do (ELF). */
function isProgram({ inode }: PlacedFile): boolean {
  const head = Buffer.alloc(4);
  new FileCursor(inode.node).read(head, 0);
  return head.toString('latin1') === '\x7fELF';
}

/** Bytewise, files without an owner last. */
function compareOwners(a: ByteString | undefined, b: ByteString | undefined): number {
  if (a === b) return 0;
  if (a === undefined) return 1;
  return b === undefined || a < b ? -1 : 1;
}
