import { openFence } from '../fence/open-fence.ts';
import type { BottlePlan } from '../plan/plan.ts';
import type { Bottle } from './bottle.ts';
import type { OpenBottleDeps } from './deps.ts';
import { launch } from './launch.ts';
import { requireSameNetwork, selfProbe } from './self-probe.ts';

/**
 * Launches a bottle as its plan has it; see {@link launch} for the order. When it returns, the fence was tried from inside
 * and the provisioning is done; nothing of the image has run but what the provisioning ran.
 * @throws JAIL_UNAVAILABLE, JAIL_FAILED, BOTTLE_PROBE_FAILED, BOTTLE_ENDED, TIMEOUT, NAME_INVALID, CONFLICT, CONFIG_INVALID, and
 * what the image and the provisioning throw; an AggregateError when something could not be undone either.
 */
export async function openBottle(plan: BottlePlan, deps: OpenBottleDeps): Promise<Bottle> {
  return await launch(plan, deps, { openFence: deps.openFence ?? openFence, selfProbe, requireSameNetwork });
}
