import { createBottleClient, isSlug, listBottles, type BottleClient } from '@decant/bottle';
import { DecantError, quote } from '@decant/core';

import { bottlesDirectory } from './bottle-directories.ts';
import type { Session } from './session.ts';

/** The control socket of a running bottle. @throws NAME_INVALID, NOT_FOUND, BOTTLE_ENDED when its supervisor was killed */
export async function findBottle(session: Session, slug: string): Promise<BottleClient> {
  if (!isSlug(slug)) {
    throw new DecantError('NAME_INVALID', `${quote(slug)} cannot be the name of a bottle.`, {
      hint: 'decant bottle ls shows the names of those that run.',
    });
  }
  const found = (await listBottles(bottlesDirectory(session.paths))).find(({ header }) => header.slug === slug);
  if (found === undefined) {
    throw new DecantError('NOT_FOUND', `There is no running bottle ${quote(slug)}.`, {
      hint: 'decant bottle ls shows those that run.',
    });
  }
  if (found.state === 'gone') {
    throw new DecantError('BOTTLE_ENDED', `The bottle ${quote(slug)} has ended: its supervisor is gone.`, {
      hint: 'decant bottle gc removes what it left.',
    });
  }
  return createBottleClient(slug, found.stateDirectory);
}
