export type {
  Backend,
  BackendReport,
  BottleImage,
  BottleLimits,
  CopyLimits,
  Exec,
  ExecExit,
  ExecRequest,
  Machine,
  MachineRequest,
  Mount,
  PreparedMachine,
  ResourceClaim,
  ResourceStack,
} from './backends/backend.ts';
export type { EgressPolicy, EgressRequest, Pins, Route, RouteMatch, Transport, Verdict } from './net/policy.ts';
export type { AuditEvent } from './audit/audit-event.ts';
export { DEFAULT_EGRESS_LIMITS, type EgressLimits } from './egress/limits.ts';
export type {
  Fence,
  FenceConfiguration,
  FenceListeners,
  FenceListenersOptions,
  FenceOptions,
  FenceStats,
  TrustFile,
} from './fence/fence.ts';
export { DNS_PORT, portsOf, PROXY_PORT } from './fence/ports.ts';
export { addressClass, type AddressClass } from './net/address-class.ts';
export { canonicalAddress, parseAddress, type Address } from './net/address.ts';
export { parseAuthority, parseConnectTarget, type Authority } from './net/authority.ts';
export { ChunkedBody, type ChunkedStep } from './net/chunked-body.ts';
export { parseCidr, type Cidr } from './net/cidr.ts';
export { MAX_CLIENT_HELLO_BYTES, parseClientHello, type ClientHello, type Incomplete } from './net/client-hello.ts';
export { policyProblems } from './net/compiled-policy.ts';
export {
  encodeDnsAnswer,
  encodeDnsRefusal,
  MAX_DNS_QUERY_BYTES,
  parseDnsQuery,
  type DnsAnswer,
  type DnsQuery,
  type DnsRcode,
  type DnsRefusal,
} from './net/dns-message.ts';
export { parseHostPattern, type HostPattern } from './net/host-pattern.ts';
export { canonicalHost, type Host } from './net/host.ts';
export type { Field } from './net/http-fields.ts';
export { parseRequestHead, type BodyFraming, type HeadLimits, type RequestHead } from './net/http-head.ts';
export type { RequestTarget } from './net/http-target.ts';
export { judge, type Judgement } from './net/judge.ts';
export type { NameBudgetLimits } from './net/name-budget.ts';
export { RULES, type Refusal, type RuleId } from './net/refusal.ts';
export { createResolver, type Lookup, type Resolver, type ResolverOptions } from './net/resolver.ts';
export { verdict } from './net/verdict.ts';
export { openFence, openFenceListeners } from './fence/open-fence.ts';
export { AuditLog, type AuditLogOptions } from './audit/audit-log.ts';
export { verifyAudit, type AuditReport } from './audit/verify-audit.ts';
