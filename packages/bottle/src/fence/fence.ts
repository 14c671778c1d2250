import type { AuditEvent } from '../audit/audit-event.ts';
import type { EgressLimits } from '../egress/limits.ts';
import type { EgressPolicy } from '../net/policy.ts';
import type { Prober } from './prober.ts';

/** What opens the listeners: a namespace and the ports in it. No policy is needed yet, so it can be done ahead of a launch. */
export interface FenceListenersOptions {
  /** `new`: a network namespace with `lo` only. A path (such as `/proc/PID/ns/net`): listeners in that one. */
  readonly network: 'new' | { readonly path: string };
  /** Ports besides 80, 443, 53 and 9099 on which connections are caught; at most 256. See {@link portsOf}. */
  readonly ports?: readonly number[] | undefined;
  /** Host user and group id of the sidecar, which nothing else has; default: a random one from 1,342,177,280 up. */
  readonly userId?: number | undefined;
  /** The sidecar's program, when a bundler has moved it; default: beside this module. */
  readonly sidecarUrl?: URL | undefined;
  /**
   * Called with the path of the namespace once the listeners in it are open, and before the sidecar runs: a machine can be
   * set up in it meanwhile. What connects waits, and is refused when the fence cannot be opened.
   */
  readonly onNamespace?: ((path: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What may pass, and how names and certificates of the outside are judged. */
export interface FenceConfiguration {
  readonly policy: EgressPolicy;
  /** Addresses of DNS servers (`192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:53`); default: those of the host. */
  readonly resolvers?: readonly string[] | undefined;
  /** PEM certificates that are trusted for upstreams besides the system's. */
  readonly upstreamCaPem?: string | undefined;
  readonly limits?: Partial<EgressLimits> | undefined;
  /** Every decision, in order. When it throws, the fence closes: nothing passes that is not recorded. */
  readonly onAudit: (event: AuditEvent) => void;
}

export type FenceOptions = FenceListenersOptions & FenceConfiguration;

/** Counters since the fence was opened. */
export interface FenceStats {
  readonly connections: number;
  readonly openConnections: number;
  /** Connections that were reset because there were too many. */
  readonly droppedConnections: number;
  readonly allowedRequests: number;
  readonly deniedRequests: number;
  readonly deniedConnections: number;
  readonly dnsQueries: number;
  readonly deniedDnsQueries: number;
  /** Bytes of bodies and tunnels to upstreams and back. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Connection attempts and datagrams that the namespace refused, because nothing listens there. */
  readonly refusedConnections: number;
  readonly refusedDatagrams: number;
}

/** The only way out of a bottle. Disposing closes every connection and listener. */
export interface Fence extends AsyncDisposable {
  /** Path that a machine joins; valid while the fence is open. */
  readonly networkNamespace: string;
  /** Process id of the sidecar, for the ledger. */
  readonly processId: number;
  /** The certificate of this fence's own authority. */
  readonly certificatePem: string;
  /** Proxy and trust variables for every command of the bottle; see {@link trustFiles} for the files they name. */
  readonly env: Readonly<Record<string, string>>;
  /**
   * Files to put into the bottle so that its programs trust the fence. `read` gives a file of the image, links followed
   * inside it, or undefined when there is none: where the image has a bundle of authorities ours is added to it.
   */
  trustFiles(read: (path: string) => Promise<Uint8Array | undefined>): Promise<readonly TrustFile[]>;
  /**
   * Takes another policy for everything that is judged from now on. What passes already goes on.
   * @throws CONFIG_INVALID when a route names a port that was not opened.
   */
  reload(policy: EgressPolicy): Promise<void>;
  stats(): Promise<FenceStats>;
  /** A process to try it from inside with, started together with it; it ends with the fence. */
  readonly prober?: Prober | undefined;
  /** Ends when the sidecar ends, for whatever reason; never rejects. Connections are refused from then on. */
  readonly ended: Promise<{ readonly reason: string }>;
  close(): Promise<void>;
}

export interface TrustFile {
  /** Absolute path inside. */
  readonly path: string;
  readonly content: Uint8Array;
  readonly mode: number;
}

/** Listeners that stand ready and let nothing through until they are configured. */
export interface FenceListeners extends AsyncDisposable {
  readonly networkNamespace: string;
  readonly processId: number;
  /** Ports on which connections are caught. */
  readonly ports: readonly number[];
  /** Once. From then on the fence owns the listeners. @throws CONFIG_INVALID as `reload`. */
  configure(configuration: FenceConfiguration, signal?: AbortSignal): Promise<Fence>;
  readonly ended: Promise<{ readonly reason: string }>;
}
