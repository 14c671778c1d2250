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
