import { addressClass } from './address-class.ts';
import { parseAddress } from './address.ts';
import { parseAuthority } from './authority.ts';
import { cidrHas } from './cidr.ts';
import { compilePolicy, routesFor, type CompiledPolicy, type CompiledRoute, type RouteHit } from './compiled-policy.ts';
import { patternMatches } from './host-pattern.ts';
import { canonicalHost, type Host } from './host.ts';
import { isRandomName, shownHost } from './name-entropy.ts';
import type { EgressPolicy, EgressRequest, Pins, Verdict } from './policy.ts';
import { refused, type Refusal } from './refusal.ts';
import { matchRoutes } from './route-match.ts';

/** Names by which clouds offer their metadata service; what holds is the address, this gives the better reason. */
const METADATA_NAMES: ReadonlySet<string> = new Set([
  ...['metadata.google.internal', 'metadata.goog', 'instance-data.ec2.internal', 'instance-data'],
  ...['metadata.azure.internal', 'metadata.tencentyun.com', 'rancher-metadata', 'metadata'],
]);
const ADDRESS_QUESTIONS: ReadonlySet<string> = new Set(['A', 'AAAA']);
const TRANSFERS: ReadonlySet<string> = new Set(['AXFR', 'IXFR']);
const LOCAL_NAME = /^(?:.*\.)?(?:localhost|localhost\.localdomain|localhost6|ip6-localhost|ip6-loopback)$/;

/**
 * Decides about a connection or request by what is known of it. Pure and total: the same answer for the same arguments, never an error.
 * It is asked again whenever more is known: after CONNECT, after the ClientHello, for each request on a connection.
 *
 * In this order: every name must be in its one form and agree with the others; names of this machine, metadata services and the deny list;
 * the routes for the host and port (only the most specific host pattern counts); protocol, method, path and headers; then the addresses the
 * name is pinned to, each of which must be allowed; then the address a caught connection went to, which must be one of the name's.
 */
export function verdict(policy: EgressPolicy, request: EgressRequest, pins: Pins): Verdict {
  const compiled = compilePolicy(policy);
  if (compiled.problems.length > 0) return deny('policy-invalid', 'The policy of this bottle cannot be read.');
  const asked = hostAskedFor(request);
  if (asked?.type === 'refused') return denial(asked);
  if (request.destination !== undefined) {
    const fault = destinationFault(compiled, request.destination);
    if (fault !== undefined) return denial(fault);
  }
  const host = asked ?? hostOfDestination(compiled, request, pins);
  if (host.type === 'refused') return denial(host);
  return judgeHost(compiled, host, request, pins);
}

function judgeHost(policy: CompiledPolicy, host: Host, request: EgressRequest, pins: Pins): Verdict {
  const named = nameFault(policy, host);
  if (named !== undefined) return denial(named);
  const dns = request.transport === 'dns';
  const hits = routesFor(policy, host, dns ? undefined : request.port);
  if (hits.length === 0) {
    return deny(
      'no-route',
      dns
        ? `No route allows ${shownHost(host.text)}.`
        : `No route allows ${shownHost(host.text)} on port ${request.port}.`,
    );
  }
  if (
    host.type === 'name' &&
    hits.every(({ pattern }) => pattern.type === 'below') &&
    isRandomName(host.text, baseOf(hits))
  ) {
    return deny(
      'name-entropy',
      `${shownHost(host.text)} is as long and random as data would be; name it in a route of its own if it is meant.`,
    );
  }
  const chosen = dns ? hits[0]!.compiled.route : chooseRoute(hits, host, request);
  if ('type' in chosen) return denial(chosen);
  const candidates = hits.map((hit) => hit.compiled);
  // A question is not yet for one port, so a range that any of the routes lists will do; the connection is judged by its own route.
  const routes = dns ? candidates : candidates.filter((item) => item.route === chosen);
  // What is not a question for addresses is answered with nothing, so nobody has to be asked.
  if (dns && request.questionType !== undefined && !ADDRESS_QUESTIONS.has(request.questionType)) {
    if (TRANSFERS.has(request.questionType))
      return deny('dns-type', `DNS questions of type ${request.questionType} are refused.`);
    return { allow: true, route: chosen, host: host.text, port: request.port };
  }
  if (host.type === 'name') {
    const addresses = pins.addressesOf(host.text);
    if (addresses === undefined) return { allow: 'resolve', name: host.text, wildcard: baseOf(hits) };
    if (addresses.length === 0) return deny('unresolved', `${host.text} has no address.`);
    // One that is denied speaks against the name: who gives it may give it alone the next time.
    for (const address of addresses) {
      const fault = addressFault(policy, routes, address, host.text);
      if (fault !== undefined) return denial(fault);
    }
  } else {
    const fault = addressFault(policy, routes, host.text, host.text);
    if (fault !== undefined) return denial(fault);
  }
  if (request.destination !== undefined && !leadsTo(request.destination, host, pins)) {
    return deny('unknown-address', `${request.destination} is not an address of ${host.text} in this bottle.`);
  }
  return { allow: true, route: chosen, host: host.text, port: request.port };
}

/** The one host that a request names, undefined when it names none. */
function hostAskedFor(request: EgressRequest): Host | Refusal | undefined {
  let asked: Host | undefined;
  for (const text of [request.authority, request.serverName, request.host]) {
    if (text === undefined || text === null) continue;
    const bare = text.includes(':') && parseAddress(text) !== undefined ? `[${text}]` : text;
    const read = parseAuthority(bare);
    if (read.type === 'refused') return read;
    if (text === request.serverName && read.port !== undefined)
      return refused('bad-host', 'The server name has a port.');
    if (read.port !== undefined && read.port !== request.port) {
      return refused('name-mismatch', `The request names port ${read.port} on a connection to port ${request.port}.`);
    }
    // No name is written as an address is.
    if (asked !== undefined && asked.text !== read.host.text) {
      return refused(
        'name-mismatch',
        `The request names ${shownHost(read.host.text)} on a connection to ${shownHost(asked.text)}.`,
      );
    }
    asked = read.host;
  }
  if (request.serverName === null && asked?.type === 'name') {
    return refused('no-server-name', `TLS to ${shownHost(asked.text)} names no server.`);
  }
  return asked;
}

/** The host of a caught connection by its address alone: the address, when a route names it, or a name it was given for. */
function hostOfDestination(policy: CompiledPolicy, request: EgressRequest, pins: Pins): Host | Refusal {
  if (request.destination === undefined) return refused('bad-host', 'The request names no host.');
  const address = canonicalHost(request.destination);
  if (address.type === 'refused') return address;
  if (routesFor(policy, address, request.port).length > 0) return address;
  const names = pins.namesOf(address.text).map((text): Host => ({ type: 'name', text }));
  // TLS without a server name says of no name that it is meant.
  const meant = names.find((name) => routesFor(policy, name, request.port).length > 0);
  if (meant === undefined) {
    return refused(
      'unknown-address',
      `No route allows ${address.text} on port ${request.port}, and no allowed name led there.`,
    );
  }
  const protocol = routesFor(policy, meant, request.port)[0]?.compiled.route.protocol;
  if (request.serverName === null && protocol !== 'tcp')
    return refused('no-server-name', `TLS to ${meant.text} names no server.`);
  return meant;
}

function destinationFault(policy: CompiledPolicy, destination: string): Refusal | undefined {
  const address = parseAddress(destination);
  if (address === undefined) return refused('bad-host', 'The destination is not an address.');
  const kind = addressClass(address);
  if (kind === 'metadata') return refused('metadata', `${address.text} is a metadata service.`);
  // Whether a private one is listed is asked with its route.
  if (kind !== 'public' && kind !== 'private')
    return refused('special-address', `${address.text} is a ${kind} address.`);
  if (policy.denyRanges.some((range) => cidrHas(range, address)))
    return refused('deny-list', `${address.text} is on the deny list.`);
  return undefined;
}

function nameFault(policy: CompiledPolicy, host: Host): Refusal | undefined {
  if (host.type === 'name') {
    if (LOCAL_NAME.test(host.text))
      return refused('local-name', `${shownHost(host.text)} is a name of this machine itself.`);
    if (METADATA_NAMES.has(host.text)) return refused('metadata', `${host.text} is a metadata service.`);
  }
  if (policy.denyHosts.some((pattern) => patternMatches(pattern, host))) {
    return refused('deny-list', `${shownHost(host.text)} is on the deny list.`);
  }
  return host.type === 'address' ? destinationFault(policy, host.text) : undefined;
}

function addressFault(
  policy: CompiledPolicy,
  routes: readonly CompiledRoute[],
  text: string,
  name: string,
): Refusal | undefined {
  const fault = destinationFault(policy, text);
  if (fault !== undefined)
    return name === text ? fault : refused(fault.rule, `${name} leads to ${text}: ${fault.reason}`);
  const address = parseAddress(text);
  if (address === undefined || addressClass(address) === 'public') return undefined;
  if (routes.some((item) => item.privateRanges.some((range) => cidrHas(range, address)))) return undefined;
  return refused(
    'private-address',
    `${name === text ? text : `${name} leads to ${text}, which`} is private, and the route does not list it.`,
  );
}

function chooseRoute(hits: readonly RouteHit[], host: Host, request: EgressRequest): CompiledRoute['route'] | Refusal {
  const routes = hits.map((hit) => hit.compiled.route);
  const first = routes[0]!;
  if (first.protocol === 'tls' && request.encryptedClientHello === true) {
    return refused(
      'encrypted-client-hello',
      `TLS to ${host.text} hides its server name, and the route passes it on unopened.`,
    );
  }
  if (request.request === undefined) return first;
  if (first.protocol !== 'http') return refused('not-tls', `The route to ${host.text} is not for HTTP.`);
  if (request.serverName === undefined && request.port === 443) {
    return refused('plain-http', `Plain HTTP to ${host.text} on port 443.`);
  }
  return matchRoutes(routes, request.request);
}

function leadsTo(destination: string, host: Host, pins: Pins): boolean {
  const address = parseAddress(destination)?.text;
  if (address === undefined) return false;
  return host.type === 'address' ? host.text === address : pins.namesOf(address).includes(host.text);
}

function baseOf(hits: readonly RouteHit[]): string | undefined {
  const pattern = hits[0]?.pattern;
  return pattern?.type === 'below' ? pattern.base : undefined;
}

function deny(rule: Refusal['rule'], reason: string): Verdict {
  return { allow: false, rule, reason };
}

function denial({ rule, reason }: Refusal): Verdict {
  return { allow: false, rule, reason };
}
