import { DecantError } from '@decant/core';

import type { EgressPolicy } from '../net/policy.ts';

/** Where the proxy of `HTTP_PROXY` listens. */
export const PROXY_PORT = 9099;
export const DNS_PORT = 53;
/** Caught in every fence: a refusal there is readable even when no route names them. */
const ALWAYS = [80, 443] as const;
const MOST_PORTS = 256;

/** The ports that a policy's connections are caught on, in ascending order. @throws CONFIG_INVALID */
export function portsOf(policy: EgressPolicy): readonly number[] {
  return checkedPorts(policy.routes.flatMap((route) => route.ports));
}

/** The given ports and those of every fence. @throws CONFIG_INVALID */
export function checkedPorts(ports: readonly number[]): readonly number[] {
  const all = [...new Set([...ALWAYS, ...ports])].toSorted((a, b) => a - b);
  for (const port of all) {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new DecantError('CONFIG_INVALID', `${port} is no port.`, {
        hint: 'Ports are whole numbers from 1 to 65535.',
      });
    }
    if (port === DNS_PORT || port === PROXY_PORT) {
      throw new DecantError('CONFIG_INVALID', `Port ${port} of a route belongs to the fence itself.`, {
        hint: `Names are answered on ${DNS_PORT} and the proxy listens on ${PROXY_PORT}: a route cannot name them.`,
      });
    }
  }
  if (all.length > MOST_PORTS) {
    throw new DecantError('CONFIG_INVALID', `The routes name ${all.length} ports, and ${MOST_PORTS} are the most.`);
  }
  return all;
}
