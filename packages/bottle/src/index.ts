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
  MachineFiles,
  MachineRequest,
  Mount,
  PreparedMachine,
  ResourceClaim,
  ResourceStack,
} from './backends/backend.ts';
export type { Bottle, BottleEnd, BottlePaths, BottleStats, EndReason, RunAgentOptions } from './bottle/bottle.ts';
export { SandboxReserve, type SandboxReserveOptions } from '@decant/jail';
export { openFencePool, type FencePool, type FencePoolOptions } from './bottle/fence-pool.ts';
export { openBottle } from './bottle/open-bottle.ts';
export type { BottleEvent, ImageRequest, OpenBottleDeps, ResolvedImage } from './bottle/deps.ts';
export { AgentLog } from './control/agent-log.ts';
export type { AgentViewer } from './control/agent-session.ts';
export {
  createBottleClient,
  type AttachRequest,
  type BottleClient,
  type FollowLogRequest,
  type RemoteExec,
  type RemoteExecRequest,
  type RemoteOutput,
} from './control/client.ts';
export { DetachKeys } from './control/detach-keys.ts';
export type { BottleInfo } from './control/messages.ts';
export { findRecord, listRecords, type BottleRecord } from './control/records.ts';
export { requestManifest, type ManifestInput } from './control/request-manifest.ts';
export { dockerBackend, type DockerBackendOptions } from './backends/docker/docker-backend.ts';
export { nativeBackend, type NativeBackendOptions } from './backends/native/native-backend.ts';
export {
  superviseBottle,
  type SupervisedBottle,
  type SupervisedEnd,
  type SuperviseOptions,
} from './control/supervise.ts';
export type { EgressPolicy, EgressRequest, Pins, Route, RouteMatch, Transport, Verdict } from './net/policy.ts';
export type {
  AgentPlan,
  BottleArtifact,
  BottleCertificate,
  BottleEndpoints,
  BottlePlan,
  BottleSpec,
  EgressPlan,
  PromptMode,
} from './plan/plan.ts';
export { formatPlan } from './plan/format-plan.ts';
export { planBottle } from './plan/plan-bottle.ts';
export { isSlug, slugBase } from './plan/slug.ts';
export type { FaultHook, FaultPoint } from './stack/fault-points.ts';
export {
  collectBottles,
  listBottles,
  type BottleListing,
  type CollectOptions,
  type CollectResult,
} from './stack/gc.ts';
export type { LedgerHeader } from './stack/ledger.ts';
export { openStack, type BottleStack, type StackOptions } from './stack/stack.ts';
export { loadManifest, type LoadedManifest, type LoadManifestOptions } from './manifest/load.ts';
export { mergeManifests } from './manifest/merge.ts';
export { listManifests, operatorDirectory } from './manifest/operator-directory.ts';
export { parseManifest, type ManifestProblem } from './manifest/parse.ts';
export type { EnvironmentSource, Manifest, ManifestRoute } from './manifest/schema.ts';
export { environmentOf, routeOf, specOf, type SpecResult } from './manifest/spec.ts';
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
export { shownHost } from './net/name-entropy.ts';
export type { NameBudgetLimits } from './net/name-budget.ts';
export { RULES, type Refusal, type RuleId } from './net/refusal.ts';
export { createResolver, type Lookup, type Resolver, type ResolverOptions } from './net/resolver.ts';
export { verdict } from './net/verdict.ts';
export { openFence, openFenceListeners } from './fence/open-fence.ts';
export { readAudit } from './audit/audit-files.ts';
export { AuditLog, type AuditLogOptions } from './audit/audit-log.ts';
export { verifyAudit, type AuditReport } from './audit/verify-audit.ts';
