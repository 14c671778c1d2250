import type { RuleId } from './refusal.ts';

/** What one route lets through, in the vocabulary of Kubernetes' HTTPRoute. Everything that is named must match. */
export interface RouteMatch {
  readonly path?: { readonly type: 'exact' | 'prefix'; readonly value: string } | undefined;
  /** Upper case; left out: every method. */
  readonly methods?: readonly string[] | undefined;
  readonly headers?: readonly { readonly name: string; readonly value: string }[] | undefined;
}

/** Hosts and ports that a bottle may reach, and what it may ask for there. */
export interface Route {
  /** Unique in its policy; audit events name it. */
  readonly id: string;
  /**
   * Canonical host names, `*.example.com` for names below one (on a label boundary, the name itself not included),
   * or an IP address. Never empty.
   */
  readonly hosts: readonly string[];
  /** Default of the manifest: 443 and 80. */
  readonly ports: readonly number[];
  /**
   * `http`: HTTP, in TLS that is intercepted (or in plain on other ports than 443); every request is judged.
   * `tls`: TLS that is passed on unopened after its server name was judged; `matches` must be empty.
   * `tcp`: any protocol; the destination address must be what a host of this route resolved to; `matches` must be empty.
   */
  readonly protocol: 'http' | 'tls' | 'tcp';
  /** One of them must match; empty: every request. */
  readonly matches: readonly RouteMatch[];
  /** Private ranges (CIDR) that this route's names may resolve to. Loopback, link-local and metadata addresses stay denied. */
  readonly privateRanges: readonly string[];
}

/** Default deny: no routes deny everything. Serialisable; holds no secret. */
export interface EgressPolicy {
  readonly routes: readonly Route[];
  /** Host patterns as in routes, and CIDR ranges; a match beats every route. */
  readonly deny: readonly string[];
}

/** How a connection or request came in. */
export type Transport =
  /** CONNECT to the proxy. */
  | 'connect'
  /** An absolute-form request to the proxy. */
  | 'proxy'
  /** A connection that the namespace caught on its way to an address. */
  | 'transparent'
  | 'dns';

/** What is known of a connection or request when it is judged; what is not known yet is left out. */
export interface EgressRequest {
  readonly transport: Transport;
  /** Port that was asked for, 1 to 65535. */
  readonly port: number;
  /** Destination address of a caught connection, in canonical form. */
  readonly destination?: string | undefined;
  /** Authority of CONNECT or of an absolute URI, as the client wrote it. */
  readonly authority?: string | undefined;
  /** Server name of the ClientHello, as the client wrote it; null when it sent none. */
  readonly serverName?: string | null | undefined;
  /** Whether the ClientHello carries an encrypted one (or the grease that looks like it). */
  readonly encryptedClientHello?: boolean | undefined;
  /** Value of the Host header, or the name that a DNS question asks for, as the client wrote it. */
  readonly host?: string | undefined;
  readonly request?:
    | {
        readonly method: string;
        /** Path and query as they were sent. */
        readonly target: string;
        /** Names in lower case, in the order they came. */
        readonly headers: readonly (readonly [string, string])[];
      }
    | undefined;
  /** DNS question type, for `dns`. */
  readonly questionType?: string | undefined;
}

/** Addresses that names resolved to when they were first asked for; the address that was checked is the one that is dialled. */
export interface Pins {
  /** Canonical addresses of a canonical name; undefined while it was not looked up. */
  addressesOf(name: string): readonly string[] | undefined;
  /** Canonical names that were resolved to this address in this bottle. */
  namesOf(address: string): readonly string[];
}

export type Verdict =
  | { readonly allow: true; readonly route: Route; /** Canonical. */ readonly host: string; readonly port: number }
  /** The name must be looked up and pinned, then the request judged again. Only ever for names that a route allows. */
  | {
      readonly allow: 'resolve';
      readonly name: string;
      /** What stands behind the star when a wildcard allows the name. */
      readonly wildcard?: string | undefined;
    }
  | {
      readonly allow: false;
      readonly rule: RuleId;
      /** One sentence, safe to show the agent. */ readonly reason: string;
    };
