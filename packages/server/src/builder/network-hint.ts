/**
 * What programs say when they have no network: resolvers (glibc, musl, Node, Go, curl, wget, apt, git), and systems whose
 * only interface is down.
 */
const UNREACHED = new RegExp(
  [
    'temporary failure (in name resolution|resolving)',
    'could not resolve (host|hostname|proxy)',
    'name or service not known',
    'no address associated with hostname',
    'failed to resolve|unable to resolve|bad address',
    'getaddrinfo (EAI_AGAIN|ENOTFOUND)',
    'dial tcp: lookup ',
    'network is (unreachable|down)|no servers could be reached',
    'dns: (transient|temporary) error|temporary error \\(try again later\\)',
  ].join('|'),
  'i',
);

/** Longest part of a line that is looked at, in characters. */
const LOOKED_AT = 2000;

export const NO_NETWORK_HINT =
  'Steps of builds at this service have no network. COPY what the step wants to fetch, begin with a base image that has it, or build on a machine of yours with --local.';

/** Whether a line of a step says that it could not reach the network. */
export function saysNoNetwork(line: string): boolean {
  return UNREACHED.test(line.slice(0, LOOKED_AT));
}
