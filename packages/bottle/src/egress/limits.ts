import { KIB } from '@decant/core';

/** What one fence holds, waits for and lets through at most. Times are milliseconds. */
export interface EgressLimits {
  /** Connections of the bottle at one time; further ones are reset. */
  readonly connections: number;
  /** Bytes of a request's or response's head. */
  readonly headBytes: number;
  /** From the first byte of a head to its end, and of a ClientHello to the end of its handshake. */
  readonly headTimeMs: number;
  /** A kept connection without a request. */
  readonly keepAliveMs: number;
  /** Until an upstream's address takes the connection and its TLS handshake is done. */
  readonly connectTimeMs: number;
  /** From a request to the head of its response. Services that think before they answer take minutes. */
  readonly responseTimeMs: number;
  /** A body, tunnel or WebSocket on which nothing moves. */
  readonly idleTimeMs: number;
  /** A connection of the bottle, from its first byte to its last. */
  readonly totalTimeMs: number;
  /** Requests on one connection. */
  readonly requestsPerConnection: number;
  /** Audit events that wait to be written; while there are as many, nothing is let through. */
  readonly auditBacklog: number;
}

export const DEFAULT_EGRESS_LIMITS: EgressLimits = {
  connections: 512,
  headBytes: 64 * KIB,
  headTimeMs: 15_000,
  keepAliveMs: 60_000,
  connectTimeMs: 10_000,
  responseTimeMs: 10 * 60_000,
  idleTimeMs: 10 * 60_000,
  totalTimeMs: 24 * 60 * 60_000,
  requestsPerConnection: 10_000,
  auditBacklog: 10_000,
};
