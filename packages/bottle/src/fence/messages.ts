import { z } from 'zod';

import type { AuditEvent } from '../audit/audit-event.ts';
import type { EgressLimits } from '../egress/limits.ts';
import type { EgressPolicy } from '../net/policy.ts';

/** What the supervisor tells the sidecar. */
export type ToSidecar =
  | {
      readonly type: 'configure';
      readonly policy: EgressPolicy;
      /** Left out: those of the host. */
      readonly resolvers?: readonly string[] | undefined;
      readonly upstreamCaPem?: string | undefined;
      readonly limits: EgressLimits;
    }
  | { readonly type: 'reload'; readonly policy: EgressPolicy }
  | { readonly type: 'stats' }
  | { readonly type: 'close' };

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const text = (most: number) => z.string().max(most);

const statsSchema = z.strictObject({
  connections: count,
  openConnections: count,
  droppedConnections: count,
  allowedRequests: count,
  deniedRequests: count,
  deniedConnections: count,
  dnsQueries: count,
  deniedDnsQueries: count,
  sentBytes: count,
  receivedBytes: count,
  refusedConnections: count,
  refusedDatagrams: count,
});

const eventSchema = z.strictObject({
  time: text(30),
  type: z.enum(['connection', 'request', 'end', 'dns', 'namespace', 'fence']),
  decision: z.enum(['allow', 'deny', 'info']),
  rule: text(256),
  transport: z.enum(['connect', 'proxy', 'transparent', 'dns']).optional(),
  connection: count.optional(),
  host: text(253).optional(),
  port: z.number().int().min(0).max(65_535).optional(),
  address: text(64).optional(),
  method: text(32).optional(),
  path: text(1024).optional(),
  questionType: text(16).optional(),
  status: z.number().int().min(0).max(999).optional(),
  sentBytes: count.optional(),
  receivedBytes: count.optional(),
  durationMs: z.number().min(0).optional(),
  count: count.optional(),
  reason: text(512).optional(),
}) satisfies z.ZodType<AuditEvent>;

/**
 * What the sidecar tells the supervisor. It reads hostile bytes all day, so what it says is checked as if it came from
 * there.
 */
export const fromSidecarSchema = z.discriminatedUnion('type', [
  // Of the prologue: the descriptor by which it, and then the sidecar, holds the namespace.
  z.strictObject({ type: z.literal('opened'), namespace: z.number().int().min(3).max(1023) }),
  z.strictObject({ type: z.literal('listening'), certificatePem: text(8192) }),
  z.strictObject({ type: z.literal('configured') }),
  z.strictObject({ type: z.literal('reloaded') }),
  z.strictObject({ type: z.literal('stats'), stats: statsSchema }),
  z.strictObject({ type: z.literal('audit'), events: z.array(eventSchema).max(1000) }),
  z.strictObject({ type: z.literal('closed') }),
]);

export type FromSidecar = z.infer<typeof fromSidecarSchema>;
