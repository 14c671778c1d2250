import { digestHex } from '../digest.ts';

/*
 * Where a registry keeps what, below its prefix. The bytes of a blob are kept once, whatever repositories have
 * it; that a repository has it is an object of its own. No part of a repository's name begins with "_".
 *
 *     blobs/sha256/HEX                          bytes
 *     unneeded/sha256/HEX                       since when no repository has the blob, in milliseconds of Unix time
 *     using/sha256/HEX/ID                       since when a process relies on the blob being there, in the same form
 *     removing/sha256/HEX/ID                    since when a collection is removing the blob, in the same form
 *     repositories/NAME/_blobs/HEX              empty: the repository has this blob
 *     repositories/NAME/_unneeded/HEX           since when no manifest of the repository names the blob, in the same form
 *     repositories/NAME/_manifests/HEX          media type, line end, bytes of the manifest
 *     repositories/NAME/_tags/TAG               digest
 *     repositories/NAME/_referrers/HEX/HEX      descriptor of the second manifest, whose subject is the first
 *     repositories/NAME/_uploads/ID/begun       empty
 *     repositories/NAME/_uploads/ID/OFFSET      bytes from this offset, 16 digits, up to the next one
 */
export class RegistryKeys {
  readonly #prefix: string;

  /** `prefix` ends with a slash or is empty. */
  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  blobs(): string {
    return `${this.#prefix}blobs/sha256/`;
  }

  blob(digest: string): string {
    return `${this.blobs()}${digestHex(digest)}`;
  }

  blobMarks(): string {
    return `${this.#prefix}unneeded/sha256/`;
  }

  blobMark(digest: string): string {
    return `${this.blobMarks()}${digestHex(digest)}`;
  }

  /** Notes of processes that use a blob; of all blobs without a digest. */
  uses(digest?: string): string {
    return `${this.#prefix}using/sha256/${digest === undefined ? '' : `${digestHex(digest)}/`}`;
  }

  use(digest: string, id: string): string {
    return `${this.uses(digest)}${id}`;
  }

  /** Notes of collections that remove a blob; of all blobs without a digest. */
  removals(digest?: string): string {
    return `${this.#prefix}removing/sha256/${digest === undefined ? '' : `${digestHex(digest)}/`}`;
  }

  removal(digest: string, id: string): string {
    return `${this.removals(digest)}${id}`;
  }

  links(repository: string): string {
    return `${this.#of(repository)}_blobs/`;
  }

  link(repository: string, digest: string): string {
    return `${this.links(repository)}${digestHex(digest)}`;
  }

  linkMarks(repository: string): string {
    return `${this.#of(repository)}_unneeded/`;
  }

  linkMark(repository: string, digest: string): string {
    return `${this.linkMarks(repository)}${digestHex(digest)}`;
  }

  manifests(repository: string): string {
    return `${this.#of(repository)}_manifests/`;
  }

  manifest(repository: string, digest: string): string {
    return `${this.manifests(repository)}${digestHex(digest)}`;
  }

  tags(repository: string): string {
    return `${this.#of(repository)}_tags/`;
  }

  tag(repository: string, tag: string): string {
    return `${this.tags(repository)}${tag}`;
  }

  referrers(repository: string, subject: string): string {
    return `${this.#of(repository)}_referrers/${digestHex(subject)}/`;
  }

  uploads(repository: string): string {
    return `${this.#of(repository)}_uploads/`;
  }

  upload(repository: string, id: string): string {
    return `${this.uploads(repository)}${id}/`;
  }

  repositories(): string {
    return `${this.#prefix}repositories/`;
  }

  /** The repository that an object belongs to. */
  repositoryOf(key: string): string | undefined {
    const [, name] = /^(.+?)\/_[a-z]+\//.exec(key.slice(this.repositories().length)) ?? [];
    return name;
  }

  #of(repository: string): string {
    return `${this.repositories()}${repository}/`;
  }
}
