import { parseCidr, type Cidr } from './cidr.ts';
import { parseHostPattern, patternMatches, specificity, type HostPattern } from './host-pattern.ts';
import type { Host } from './host.ts';
import { normalPath } from './path.ts';
import type { EgressPolicy, Route } from './policy.ts';

/** A policy with its patterns read. */
export interface CompiledPolicy {
  /** What cannot be read in it; nothing is allowed when there is any. */
  readonly problems: readonly string[];
  readonly routes: readonly CompiledRoute[];
  readonly denyHosts: readonly HostPattern[];
  readonly denyRanges: readonly Cidr[];
}

export interface CompiledRoute {
  readonly route: Route;
  readonly hosts: readonly HostPattern[];
  readonly privateRanges: readonly Cidr[];
}

const compiled = new WeakMap<EgressPolicy, CompiledPolicy>();

/** Reads the patterns of a policy once for each policy object, which must not be changed afterwards. */
export function compilePolicy(policy: EgressPolicy): CompiledPolicy {
  const known = compiled.get(policy);
  if (known !== undefined) return known;
  const fresh = compile(policy);
  compiled.set(policy, fresh);
  return fresh;
}

/** What is wrong with a policy, one sentence each, naming the route; empty when it can be used. */
export function policyProblems(policy: EgressPolicy): readonly string[] {
  return compilePolicy(policy).problems;
}

function compile(policy: EgressPolicy): CompiledPolicy {
  const problems: string[] = [];
  const denyHosts: HostPattern[] = [];
  const denyRanges: Cidr[] = [];
  for (const text of policy.deny) {
    const range = parseCidr(text);
    const pattern = range === undefined ? parseHostPattern(text) : undefined;
    if (range !== undefined) denyRanges.push(range);
    else if (pattern !== undefined) denyHosts.push(pattern);
    else problems.push(`The deny list has ${JSON.stringify(text)}, which is no host, pattern or range.`);
  }
  const ids = new Set<string>();
  const routes = policy.routes.map((route) => {
    if (ids.has(route.id)) problems.push(`Two routes have the id ${JSON.stringify(route.id)}.`);
    ids.add(route.id);
    return compileRoute(route, (problem) => problems.push(`Route ${JSON.stringify(route.id)} ${problem}.`));
  });
  problems.push(...conflicts(routes));
  return { problems, routes, denyHosts, denyRanges };
}

function compileRoute(route: Route, report: (problem: string) => void): CompiledRoute {
  if (route.hosts.length === 0) report('names no host');
  if (route.ports.length === 0) report('names no port');
  const hosts: HostPattern[] = [];
  for (const text of route.hosts) {
    const pattern = parseHostPattern(text);
    if (pattern === undefined)
      report(`has the host ${JSON.stringify(text)}, which is no plain name, address or *.NAME`);
    else hosts.push(pattern);
  }
  for (const port of route.ports) {
    if (!Number.isInteger(port) || port < 1 || port > 65_535)
      report(`has the port ${port}, which is not from 1 to 65535`);
    else if (port === 53) report('has port 53, which is for DNS and answered by the bottle itself');
  }
  const privateRanges: Cidr[] = [];
  for (const text of route.privateRanges) {
    const range = parseCidr(text);
    if (range === undefined)
      report(`has the range ${JSON.stringify(text)}, which is not ADDRESS/BITS with zeros below`);
    else privateRanges.push(range);
  }
  if (route.protocol !== 'http' && route.matches.length > 0) {
    report(`has matches, which the protocol ${route.protocol} cannot judge`);
  }
  for (const { path, methods, headers } of route.matches) {
    if (path !== undefined && normalPath(path.value).type === 'refused') {
      report(`has the path ${JSON.stringify(path.value)}, which is no plain path`);
    }
    if (methods?.some((method) => !/^[A-Z]{1,32}$/.test(method)) === true)
      report('has a method that is not upper case');
    if (headers?.some(({ name }) => !/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/.test(name)) === true)
      report('has a header without a proper name');
  }
  return { route, hosts, privateRanges };
}

/** Two protocols for one host and port: which one a connection speaks would be chance. */
function conflicts(routes: readonly CompiledRoute[]): string[] {
  const seen = new Map<string, Route>();
  const problems: string[] = [];
  for (const { route, hosts } of routes) {
    for (const pattern of hosts) {
      for (const port of route.ports) {
        const key = `${pattern.type} ${pattern.type === 'host' ? pattern.host.text : pattern.base} ${port}`;
        const other = seen.get(key) ?? route;
        seen.set(key, other);
        if (other.protocol !== route.protocol) {
          problems.push(
            `Routes ${JSON.stringify(other.id)} and ${JSON.stringify(route.id)} have two protocols for one host and port ${port}.`,
          );
        }
      }
    }
  }
  return problems;
}

/** One route that names a host, and how: by the host itself, or by the base of a wildcard. */
export interface RouteHit {
  readonly compiled: CompiledRoute;
  readonly pattern: HostPattern;
}

/**
 * The routes for a host and a port; `undefined`: any port. Only those whose pattern says most about the host: a route for `api.example.com` is
 * not widened by one for `*.example.com`.
 */
export function routesFor(policy: CompiledPolicy, host: Host, port: number | undefined): readonly RouteHit[] {
  let best = -1;
  let hits: RouteHit[] = [];
  for (const route of policy.routes) {
    if (port !== undefined && !route.route.ports.includes(port)) continue;
    for (const pattern of route.hosts) {
      if (!patternMatches(pattern, host)) continue;
      const rank = specificity(pattern);
      if (rank < best) continue;
      if (rank > best) hits = [];
      best = rank;
      if (hits.at(-1)?.compiled !== route) hits.push({ compiled: route, pattern });
    }
  }
  return hits;
}
