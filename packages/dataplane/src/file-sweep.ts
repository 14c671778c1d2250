import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { Area } from './file-layout.ts';
import type { FileWrites } from './file-writes.ts';
import { MAX_EXPIRES_SECONDS } from './sigv4.ts';

const DAY_MS = 24 * 3600 * 1000;
const SWEEP_EVERY_MS = 3600 * 1000;

/** How long nothing may have happened to an entry before it is a leftover. Uploads outlive every signed URL. */
const MAX_AGE_MS: readonly (readonly [Area, number])[] = [
  ['temp', DAY_MS],
  ['joining', DAY_MS],
  ['completed', DAY_MS],
  ['uploads', MAX_EXPIRES_SECONDS * 1000 + DAY_MS],
];

/** Removes what killed processes and forgotten uploads left behind, in passing, at most once an hour. */
export class Sweeper {
  readonly #writes: FileWrites;
  #last = Number.NEGATIVE_INFINITY;

  constructor(writes: FileWrites) {
    this.#writes = writes;
  }

  /** Starts a sweep when one is due; it is not waited for and cannot fail its caller. */
  nudge(): void {
    if (performance.now() - this.#last < SWEEP_EVERY_MS) return;
    this.#last = performance.now();
    void this.#sweep().catch(() => undefined);
  }

  async #sweep(): Promise<void> {
    for (const [area, maxAgeMs] of MAX_AGE_MS) {
      const folder = this.#writes.path(area);
      for (const name of await readdir(folder).catch(() => [])) {
        const path = join(folder, name);
        const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }));
        if (Date.now() - mtimeMs > maxAgeMs) await rm(path, { recursive: true, force: true }).catch(() => undefined);
      }
    }
  }
}
