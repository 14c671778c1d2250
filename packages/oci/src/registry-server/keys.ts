import { digestHex } from '../digest.ts';

/*
 * Where a registry keeps what, below its prefix. The bytes of a blob are kept once, whatever repositories have
 * it; that a repository has it is an object of its own. No part of a repository's name begins with "_".
 *
 *     blobs/sha256/HEX                          bytes
 *     repositories/NAME/_blobs/HEX              empty: the repository has this blob
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

  blob(digest: string): string {
    return `${this.#prefix}blobs/sha256/${digestHex(digest)}`;
  }

  link(repository: string, digest: string): string {
    return `${this.#of(repository)}_blobs/${digestHex(digest)}`;
  }

  manifest(repository: string, digest: string): string {
    return `${this.#of(repository)}_manifests/${digestHex(digest)}`;
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

  #of(repository: string): string {
    return `${this.#prefix}repositories/${repository}/`;
  }
}
