import type { FileHandle } from 'node:fs/promises';

import { DecantError, quote } from '@decant/core';

import { tooLarge, type ReadOptions } from './blob-source.ts';
import { detectCompression, type Compression } from './decompress.ts';
import { FileCursor, readRange } from './file-range.ts';
import { limitError, type OciLimits } from './limits.ts';
import { readTarCursor } from './tar-reader.ts';

const MAX_LINKS = 8;

/** A file inside an archive, where it lies. */
export interface Member {
  readonly path: string;
  readonly offset: number;
  readonly sizeBytes: number;
}

type Entry = Member | { readonly link: string } | { readonly unusable: string };

/** The members of a tar file by name. Names are only ever looked up here: none becomes a path of this machine. */
export class ArchiveIndex {
  #file: FileHandle;
  #entries: ReadonlyMap<string, Entry>;

  private constructor(file: FileHandle, entries: ReadonlyMap<string, Entry>) {
    this.#file = file;
    this.#entries = entries;
  }

  /** Reads all headers of an open tar file, and no data. */
  static async build(
    file: FileHandle,
    sizeBytes: number,
    limits: OciLimits,
    signal?: AbortSignal,
  ): Promise<ArchiveIndex> {
    const entries = new Map<string, Entry>();
    let count = 0;
    for await (const entry of readTarCursor(new FileCursor(file, sizeBytes), { signal })) {
      if (++count > limits.archiveMembers) {
        throw limitError(
          `The archive has more than ${limits.archiveMembers} members; one of an image has a few for each layer.`,
          { name: 'archiveMembers', value: limits.archiveMembers },
        );
      }
      const path = resolveName('', fromBytes(entry.path));
      if (path === undefined) continue;
      if (entry.type === 'symlink') {
        const link = resolveName(path, fromBytes(entry.linkPath));
        entries.set(path, link === undefined ? { unusable: 'a link out of the archive' } : { link });
      } else if (entry.type === 'hardlink') {
        const link = resolveName('', fromBytes(entry.linkPath));
        entries.set(path, link === undefined ? { unusable: 'a link out of the archive' } : { link });
      } else if (entry.type === 'file' && entry.sparse === undefined) {
        entries.set(path, { path, offset: entry.dataOffset, sizeBytes: entry.sizeBytes });
      } else if (entry.type === 'directory') {
        entries.delete(path);
      } else {
        entries.set(path, { unusable: entry.sparse === undefined ? 'not a file' : 'a sparse file' });
      }
    }
    return new ArchiveIndex(file, entries);
  }

  /** The file a name leads to, through links between members; undefined when there is none. */
  find(name: string): Member | undefined {
    let path = resolveName('', name);
    for (let hops = 0; path !== undefined && hops <= MAX_LINKS; hops++) {
      const entry = this.#entries.get(path);
      if (entry === undefined) return undefined;
      if ('offset' in entry) return entry;
      if ('unusable' in entry) {
        throw new DecantError('OCI_INVALID', `The member ${quote(name)} of the archive is ${entry.unusable}.`);
      }
      path = entry.link;
    }
    throw new DecantError(
      'OCI_INVALID',
      `The member ${quote(name)} of the archive is a chain of links without an end.`,
    );
  }

  read(member: Member, options: ReadOptions = {}): AsyncIterable<Uint8Array> {
    return readRange(this.#file, member.offset, member.sizeBytes, options);
  }

  /** A whole small member. */
  async readSmall(member: Member, limitBytes: number, options: ReadOptions = {}): Promise<Uint8Array> {
    if (member.sizeBytes > limitBytes) throw tooLarge(`The member ${quote(member.path)}`, member.sizeBytes, limitBytes);
    const pieces: Uint8Array[] = [];
    for await (const piece of this.read(member, options)) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  /** How a member is compressed, by how it begins. */
  async compression(member: Member): Promise<Compression> {
    const start = Buffer.alloc(Math.min(4, member.sizeBytes));
    await this.#file.read(start, 0, start.length, member.offset);
    return detectCompression(start);
  }
}

function fromBytes(name: string): string {
  return Buffer.from(name, 'latin1').toString('utf8');
}

/** `name` seen from the directory of the member `from`, as a plain path; undefined when it leaves the archive or is its root. */
function resolveName(from: string, name: string): string | undefined {
  const parts = name.startsWith('/') ? [] : from.split('/').slice(0, -1);
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return parts.length === 0 ? undefined : parts.join('/');
}
