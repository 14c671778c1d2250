import { join } from 'node:path';

import type { DecantPaths } from './paths.ts';

/** Ledgers and state of running bottles; gone with them. */
export function bottlesDirectory({ home }: DecantPaths): string {
  return join(home, 'bottles');
}

/** What is kept of bottles that have ended: what the agent wrote, and how it ended. */
export function recordsDirectory({ home }: DecantPaths): string {
  return join(home, 'bottle-records');
}
