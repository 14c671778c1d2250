import { createBottleClient, listBottles, listRecords, type BottleInfo, type BottleListing } from '@decant/bottle';

import { bottlesDirectory, recordsDirectory } from './bottle-directories.ts';
import type { Session, WorkOptions } from './session.ts';

/** A bottle as listings show it. */
export interface ListedBottle {
  readonly slug: string;
  /**
   * `starting`: it runs and does not answer yet. `gone`: its supervisor was killed, and `gc` removes what it left.
   * `ended`: only its record is kept.
   */
  readonly state: 'starting' | BottleInfo['state'] | 'gone' | 'ended';
  readonly name: string;
  readonly image: string;
  readonly startedAt: string;
  /** What it says about itself; null when it does not answer. */
  readonly info: BottleInfo | null;
  /** How it ended; null while it runs, and when that is not known. */
  readonly ended: { readonly at: string; readonly exitCode: number | null; readonly reason: string } | null;
}

/** Running bottles by slug, and with `all` also those whose record is kept, the newest last. */
export async function listAllBottles(
  session: Session,
  { all = false }: { readonly all?: boolean | undefined },
  { signal }: WorkOptions,
): Promise<ListedBottle[]> {
  const listings = await listBottles(bottlesDirectory(session.paths));
  const running = await Promise.all(listings.map((listing) => listed(listing, signal)));
  if (!all) return running;
  const seen = new Set(running.map(({ slug, startedAt }) => `${slug} ${startedAt}`));
  const records = await listRecords(recordsDirectory(session.paths));
  const ended = records
    .filter(({ slug, startedAt }) => !seen.has(`${slug} ${startedAt}`))
    .map(({ slug, name, image, startedAt, ended: end }): ListedBottle => ({
      slug,
      state: 'ended',
      name,
      image,
      startedAt,
      info: null,
      ended: end ?? null,
    }));
  return [...ended, ...running];
}

async function listed(
  { header, state, stateDirectory }: BottleListing,
  signal: AbortSignal | undefined,
): Promise<ListedBottle> {
  const { slug, name, image } = header;
  const info =
    state === 'gone'
      ? null
      : await createBottleClient(slug, stateDirectory)
          .info(signal)
          .catch(() => {
            signal?.throwIfAborted();
            return null;
          });
  return {
    slug,
    state: state === 'gone' ? 'gone' : (info?.state ?? 'starting'),
    name,
    image,
    startedAt: info?.startedAt ?? header.createdAt,
    info,
    ended: null,
  };
}
