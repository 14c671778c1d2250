import type { Route } from '../net/policy.ts';

/** A route as one word for listings: its hosts and ports, and what it is when that is not HTTP. */
export function describeRoute({ hosts, ports, protocol, matches }: Route): string {
  const where = `${hosts.join(',')}:${ports.join(',')}`;
  const what = protocol === 'http' ? '' : `/${protocol}`;
  return `${where}${what}${matches.length === 0 ? '' : ' (some requests)'}`;
}
