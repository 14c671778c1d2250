import type { SecureContext } from 'node:tls';

import type { FenceStats } from '../fence/fence.ts';
import { judge, type Judgement } from '../net/judge.ts';
import type { EgressPolicy, EgressRequest } from '../net/policy.ts';
import type { Resolver } from '../net/resolver.ts';
import type { Authority } from './authority.ts';
import type { EgressLimits } from './limits.ts';
import type { Recorder } from './recorder.ts';

export type Counters = { -readonly [K in keyof FenceStats]: number };

export function noCounts(): Counters {
  return {
    connections: 0,
    openConnections: 0,
    droppedConnections: 0,
    allowedRequests: 0,
    deniedRequests: 0,
    deniedConnections: 0,
    dnsQueries: 0,
    deniedDnsQueries: 0,
    sentBytes: 0,
    receivedBytes: 0,
    refusedConnections: 0,
    refusedDatagrams: 0,
  };
}

/** The rules by which the fence itself refuses, besides those of the verdict. */
export type FenceRule =
  | 'audit-backlog'
  | 'slow-client'
  | 'upgrade'
  | 'upstream-unreachable'
  | 'upstream-timeout'
  | 'upstream-tls'
  | 'upstream-certificate'
  | 'upstream-invalid'
  | 'closed-port';

export interface FenceRefusal {
  readonly allow: false;
  readonly rule: FenceRule;
  readonly reason: string;
}

/** What all connections of one fence share. */
export interface Gate {
  policy: EgressPolicy;
  readonly resolver: Resolver;
  readonly authority: Authority;
  readonly limits: EgressLimits;
  readonly recorder: Recorder;
  readonly counters: Counters;
  /** What upstream certificates are verified with. */
  readonly upstreamTrust: () => SecureContext;
}

/** Judges by the policy of this moment. While decisions cannot be recorded, none lets anything through. */
export async function decide(gate: Gate, request: EgressRequest): Promise<Judgement | FenceRefusal> {
  if (gate.recorder.backlogged) {
    return {
      allow: false,
      rule: 'audit-backlog',
      reason: 'The audit log does not keep up, so nothing passes until it does.',
    };
  }
  return await judge(gate.policy, request, gate.resolver);
}
