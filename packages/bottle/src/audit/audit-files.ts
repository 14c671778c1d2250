import { createReadStream } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { errnoOf, GIB } from '@decant/core';
import { isAccessible } from '@decant/core/node';

/** Audits of bottles that are kept, and the bytes of them all together. */
const MOST_AUDITS = 1000;
const MOST_AUDIT_BYTES = 8 * GIB;
/** SLUG.STARTED.ID.jsonl, and SLUG.STARTED.ID.N.jsonl for its further files. */
const NAME = /^([a-z0-9-]+)\.([0-9TZ]+)\.[0-9a-f]{16}(?:\.[0-9]+)?\.jsonl$/;

/** The name of a new audit. `createdAt` is ISO 8601. */
export function auditName({ slug, createdAt, id }: { slug: string; createdAt: string; id: string }): string {
  return `${slug}.${createdAt.replaceAll(/[-:]|\.\d+/g, '')}.${id}.jsonl`;
}

/** The `number`th file of an audit, from 1. */
export function segmentPath(path: string, number: number): string {
  if (number === 1) return path;
  return path.endsWith('.jsonl') ? `${path.slice(0, -'.jsonl'.length)}.${number}.jsonl` : `${path}.${number}`;
}

/** The lines of an audit as they are now, over all of its files. @throws ENOENT when there is none */
export async function* readAudit(path: string, signal?: AbortSignal): AsyncGenerator<Buffer> {
  for (let number = 1, more = true; more; number++) {
    // Asked first: a file to which another one is added takes nothing more.
    more = await isAccessible(segmentPath(path, number + 1));
    yield* createReadStream(segmentPath(path, number), { signal }) as AsyncIterable<Buffer>;
  }
}

export interface AuditBounds {
  /** Default 1,000. */
  readonly audits?: number | undefined;
  /** Bytes of all audits together; default 8 GiB. */
  readonly bytes?: number | undefined;
}

/**
 * Removes the oldest audits of a folder until no more are left than may be kept. Audits of slugs for which `isLive` holds stay, and so do files with
 * other names.
 */
export async function pruneAudits(
  folder: string,
  isLive: (slug: string) => Promise<boolean>,
  { audits: most = MOST_AUDITS, bytes: mostBytes = MOST_AUDIT_BYTES }: AuditBounds = {},
): Promise<void> {
  const audits = new Map<string, { readonly slug: string; readonly started: string; files: string[]; bytes: number }>();
  for (const name of await readdir(folder)) {
    const [, slug, started] = NAME.exec(name) ?? [];
    if (slug === undefined || started === undefined) continue;
    const key = name.split('.', 3).join('.');
    const audit = audits.get(key) ?? { slug, started, files: [], bytes: 0 };
    audits.set(key, audit);
    const path = join(folder, name);
    audit.files.push(path);
    audit.bytes += await stat(path).then(({ size }) => size, gone);
  }
  let left = audits.size;
  let bytes = [...audits.values()].reduce((sum, audit) => sum + audit.bytes, 0);
  for (const audit of [...audits.values()].toSorted((a, b) => (a.started < b.started ? -1 : 1))) {
    if (left <= most && bytes <= mostBytes) return;
    if (await isLive(audit.slug)) continue;
    // The first file last: as long as it is there the audit is found, and verification says that the rest is missing.
    for (const path of audit.files.toSorted((a, b) => basename(b).length - basename(a).length)) {
      await rm(path, { force: true });
    }
    left--;
    bytes -= audit.bytes;
  }
}

/** Another bottle that has just ended removes what is too much as well. */
function gone(error: unknown): number {
  if (errnoOf(error) === 'ENOENT') return 0;
  throw error;
}
