/**
 * Why something is refused, as a stable identifier for audit events, tests and clients. New ones may be added; none changes
 * its meaning.
 */
export const RULES = {
  // policy
  'no-route': 'No route allows this host on this port.',
  'no-match': 'A route allows the host, but not this method, path or header.',
  'deny-list': 'The deny list names this host or an address of it.',
  'policy-invalid': 'The policy itself cannot be read, so nothing is allowed.',
  // addresses
  metadata: 'The metadata service of a cloud; no route allows it.',
  'special-address':
    'Loopback, link-local, multicast or another address that is not of the internet; no route allows it.',
  'private-address': 'An address of a private network that the route does not list.',
  'unknown-address': 'No allowed name was resolved to this address in this bottle, and no route names it.',
  // names
  'bad-host': 'The host is not a name or address in its one plain form.',
  'legacy-address': 'A number that some programs read as an IPv4 address and others as a name.',
  'local-name': 'A name for this machine itself.',
  'name-mismatch': 'The names and ports that one request carries do not agree.',
  'name-entropy': 'A name below a wildcard is as long and random as data would be.',
  unresolved: 'The name has no address.',
  // TLS
  'no-server-name': 'TLS without a server name.',
  'bad-client-hello': 'The first bytes are not a TLS ClientHello that can be understood.',
  'encrypted-client-hello': 'The real server name is hidden, so it cannot be judged.',
  'not-tls': 'The route passes TLS on, and this is something else.',
  'plain-http': 'Plain HTTP on the port of HTTPS, or where TLS was asked for.',
  // HTTP
  'bad-authority': 'CONNECT or an absolute URI does not name one host and one port.',
  'bad-request': 'The head of the request breaks HTTP/1.1.',
  'bad-path': 'The path can be read in two ways, and the route judges paths.',
  'bad-framing': 'Where the body of the request ends is not beyond doubt.',
  'head-too-large': 'The head of the request is over its bounds.',
  http2: 'HTTP/2 is not spoken here.',
  // DNS
  'bad-dns': 'The packet is not one plain DNS question.',
  'dns-type': 'A DNS question that asks for a whole zone.',
  'dns-budget': 'The bottle has asked for more names than it may.',
} as const satisfies Record<string, string>;

export type RuleId = keyof typeof RULES;

/** What a parser of this folder gives instead of a result. Its `reason` repeats no bytes of the input but host names. */
export interface Refusal {
  readonly type: 'refused';
  readonly rule: RuleId;
  /** One sentence, safe to show to the agent and to log. */
  readonly reason: string;
  /** Byte offset of what is at fault in the input, where there is one. */
  readonly offset?: number | undefined;
}

export function refused(rule: RuleId, reason: string, offset?: number): Refusal {
  return offset === undefined ? { type: 'refused', rule, reason } : { type: 'refused', rule, reason, offset };
}
