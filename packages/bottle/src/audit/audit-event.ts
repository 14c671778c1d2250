import type { Transport } from '../net/policy.ts';

/**
 * One thing that the fence decided or saw. It never holds a header value, a query or a byte of a body; `host` and `path`
 * are what was asked for, cut to a bound.
 */
export interface AuditEvent {
  /** When, ISO 8601 with milliseconds. */
  readonly time: string;
  /**
   * `connection`: a CONNECT, a caught connection or a pass-through was judged. `request`: an HTTP request was judged.
   * `end`: what was let through ended; denied: its body was malformed, and it was refused for that. `dns`: a question was answered. `namespace`: connections and datagrams to ports
   * that nothing listens on, which the kernel refused. `fence`: the fence itself began, changed its policy or ended.
   */
  readonly type: 'connection' | 'request' | 'end' | 'dns' | 'namespace' | 'fence';
  readonly decision: 'allow' | 'deny' | 'info';
  /** Id of the route that allowed it, or the rule that denied it. */
  readonly rule: string;
  readonly transport?: Transport | undefined;
  /** Number of the connection in this fence; what belongs together carries the same one. */
  readonly connection?: number | undefined;
  /** As it was asked for, at most 253 characters; an address when there was no name. */
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  /** Address that a caught connection was meant for, or that was dialled. */
  readonly address?: string | undefined;
  readonly method?: string | undefined;
  /** Path without its query, at most 1,024 characters. */
  readonly path?: string | undefined;
  readonly questionType?: string | undefined;
  /** HTTP status that the client got, for `end`. */
  readonly status?: number | undefined;
  /** Bytes that went out and came back, bodies and tunnels. */
  readonly sentBytes?: number | undefined;
  readonly receivedBytes?: number | undefined;
  readonly durationMs?: number | undefined;
  /** Number of things that this event stands for; 1 when left out. */
  readonly count?: number | undefined;
  /** One sentence, the same that the client was shown. */
  readonly reason?: string | undefined;
}
